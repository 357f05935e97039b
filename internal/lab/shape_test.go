package lab_test

import (
	"fmt"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

func TestCapacityIsReachedAndKept(t *testing.T) {
	for _, tc := range []struct{ down, up uint64 }{{2e6, 1e6}, {50e6, 20e6}, {400e6, 400e6}} {
		t.Run(fmt.Sprintf("%d down %d up", tc.down, tc.up), func(t *testing.T) {
			topo := masqueraded(t, lab.Options{Uplinks: []lab.UplinkOptions{{Down: tc.down, Up: tc.up}}})
			host, ctx := topo.Hosts[0], labtest.Context(t)
			expectRate(t, "down", tc.down, func(length uint64) (lab.Transfer, error) {
				return host.BulkDownload(ctx, server, 1, length)
			})
			expectRate(t, "up", tc.up, func(length uint64) (lab.Transfer, error) {
				return host.BulkUpload(ctx, server, 1, length)
			})
		})
	}
}

func TestCapacityCanBeTakenAway(t *testing.T) {
	topo := masqueraded(t, lab.Options{Uplinks: []lab.UplinkOptions{{Down: 1e6, Up: 1e6}}})
	labtest.Must(t, topo.Uplinks[0].SetCapacity(0, 0))
	labtest.Must(t, topo.Uplinks[0].SetCapacity(0, 0)) // harmless
	got, err := topo.Hosts[0].BulkDownload(labtest.Context(t), server, 1, 4<<20)
	labtest.Must(t, err)
	if got.Rate() < 10e6 {
		t.Errorf("still limited to %.1f Mbit/s", got.Rate()/1e6)
	}
}

// expectRate allows for headers and the first burst upwards. Downwards a busy machine gets further tries.
func expectRate(t *testing.T, direction string, want uint64, transfer func(length uint64) (lab.Transfer, error)) {
	t.Helper()
	for range 10 {
		got, err := transfer(want / 8) // a second's worth
		labtest.Must(t, err)
		share := got.Rate() / float64(want)
		t.Logf("%s: %.2f of %d Mbit/s", direction, share, want/1e6)
		if share > 1.25 {
			t.Fatalf("%s: more than the capacity", direction)
		}
		if share > 0.5 {
			return
		}
	}
	t.Errorf("%s: the capacity was never reached", direction)
}

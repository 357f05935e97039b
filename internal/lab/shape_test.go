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
			down, err := host.BulkDownload(ctx, server, 1, tc.down/8) // a second's worth
			labtest.Must(t, err)
			expectRate(t, "down", down, tc.down)
			up, err := host.BulkUpload(ctx, server, 1, tc.up/8)
			labtest.Must(t, err)
			expectRate(t, "up", up, tc.up)
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

// expectRate allows for headers and the first burst upwards, for a busy machine downwards.
func expectRate(t *testing.T, direction string, got lab.Transfer, want uint64) {
	t.Helper()
	share := got.Rate() / float64(want)
	t.Logf("%s: %.2f of %d Mbit/s", direction, share, want/1e6)
	if share < 0.5 || share > 1.25 {
		t.Errorf("%s: %.1f Mbit/s, want about %d", direction, got.Rate()/1e6, want/1e6)
	}
}

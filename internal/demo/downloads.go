package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	parallel = 16
	pieceLen = 256 << 10              // bytes of one download, a session of its own
	pause    = 100 * time.Millisecond // after a failed one
)

// seenFrom is the header by which the server tells each client where it saw it.
const seenFrom = "Seen-From"

func tellCaller(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(seenFrom, r.RemoteAddr)
		h.ServeHTTP(w, r)
	})
}

// downloads keeps 16 downloads going and counts what arrives by each uplink.
type downloads struct {
	client   *http.Client
	uplinkOf func(netip.Addr) int
	bytes    [count]atomic.Uint64
	sessions [count]atomic.Uint64
	failed   atomic.Uint64
}

func newDownloads(s *stage) *downloads {
	return &downloads{client: s.net.Hosts[0].HTTPClient(), uplinkOf: s.uplinkOf}
}

// run downloads until ctx ends.
func (d *downloads) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for ctx.Err() == nil {
				if err := d.one(ctx); err != nil && ctx.Err() == nil {
					d.failed.Add(1)
					rest(ctx, pause)
				}
			}
		})
	}
	workers.Wait()
}

func (d *downloads) one(ctx context.Context) error {
	resp, err := get(ctx, d.client, fmt.Sprintf("/bytes?n=%d", pieceLen))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	uplink, err := seenBy(resp, d.uplinkOf)
	if err != nil {
		return err
	}
	d.sessions[uplink].Add(1)
	_, err = io.Copy(counter{&d.bytes[uplink]}, resp.Body)
	return err
}

// seenBy returns the uplink by which a request reached the server.
func seenBy(resp *http.Response, uplinkOf func(netip.Addr) int) (int, error) {
	from, err := netip.ParseAddrPort(resp.Header.Get(seenFrom))
	if err != nil {
		return 0, fmt.Errorf("the server did not say where it saw us: %w", err)
	}
	if uplink := uplinkOf(from.Addr()); uplink >= 0 {
		return uplink, nil
	}
	return 0, fmt.Errorf("seen from %s, which is no uplink's address", from)
}

func get(ctx context.Context, client *http.Client, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.String()+path, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

// counter counts what is written to it.
type counter struct{ n *atomic.Uint64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(uint64(len(b)))
	return len(b), nil
}

// rest waits, unless ctx ends first.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

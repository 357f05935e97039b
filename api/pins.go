package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// MaxPin is how long somebody may be pinned to an uplink for, where an end is named.
const MaxPin = 30 * 24 * time.Hour

// Pin has the new sessions of an inside host use one uplink while it is up, to one site or to all: GET /v1/pins returns a list of
// them.
type Pin struct {
	Inside netip.Addr `json:"inside"`         // the host; "" for the gateway itself
	Site   string     `json:"site"`           // domain with all below it, address or prefix; "" for all
	Uplink string     `json:"uplink"`         // name
	Until  time.Time  `json:"until,omitzero"` // absent: until the daemon ends
}

// Pins returns them in the order in which they are looked at; the list is never nil.
func (c *Client) Pins(ctx context.Context) ([]Pin, error) {
	list := []Pin{}
	err := c.get(ctx, "/v1/pins", &list)
	return list, err
}

// PinHost has an inside host, or the gateway itself for an address that is not valid, use the uplink called name for new sessions to a
// site, or to all for "": for so long, or for 0 until the daemon ends. It replaces the pin of the same host and site.
// ErrUnknownUplink when there is no such uplink.
func (c *Client) PinHost(ctx context.Context, inside netip.Addr, site, name string, length time.Duration) error {
	v := pinned(inside, site)
	v.Set("uplink", name)
	if length != 0 {
		v.Set("seconds", strconv.FormatFloat(length.Seconds(), 'f', -1, 64))
	}
	return c.post(ctx, "/v1/pins?"+v.Encode())
}

// Unpin ends what PinHost began; ErrConflict when there is no such pin.
func (c *Client) Unpin(ctx context.Context, inside netip.Addr, site string) error {
	return c.change(ctx, http.MethodDelete, "/v1/pins?"+pinned(inside, site).Encode())
}

func pinned(inside netip.Addr, site string) url.Values {
	v := url.Values{}
	if inside.IsValid() {
		v.Set("inside", inside.String())
	}
	if site != "" {
		v.Set("site", site)
	}
	return v
}

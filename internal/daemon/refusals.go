package daemon

import (
	"fmt"
	"time"

	"tapgw/internal/packet"
)

// tellRefusals logs why new sessions are refused: once in a while for each reason, and for each inside host.
func (d *Daemon) tellRefusals(now time.Time) {
	for _, r := range d.gateway.TakeRefusals() {
		attributes := []any{"reason", r.Reason.String(), "why", r.Advice()}
		if r.Inside != (packet.Addr{}) {
			attributes = append(attributes, "host", r.Inside.Netip())
		}
		if d.refused.fresh(fmt.Sprint(attributes...), now) {
			d.log.Warn("new sessions are refused", attributes...)
		}
	}
}

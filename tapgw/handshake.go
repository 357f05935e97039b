package tapgw

import "time"

// How long a first packet may wait for its answer before that is remarkable.
const (
	leastWait   = 100 * time.Millisecond // below, a busy remote or a retransmission on the way would look like silence
	mostWait    = 400 * time.Millisecond
	unknownWait = 250 * time.Millisecond // as long as nothing is known of an uplink
)

// handshakes are the times that remotes take to answer by one uplink, smoothed as TCP does for its timeouts (RFC 6298 §2).
type handshakes struct{ smoothed, variation time.Duration }

// add takes the time of one handshake.
func (h *handshakes) add(took time.Duration) {
	if took <= 0 {
		return
	}
	if h.smoothed == 0 {
		h.smoothed, h.variation = took, took/2
		return
	}
	h.variation += ((h.smoothed - took).Abs() - h.variation) / 4
	h.smoothed += (took - h.smoothed) / 8
}

// wait is how long to wait for an answer, where probed is the round trip of probes, 0 if there are none.
func (h *handshakes) wait(probed time.Duration) time.Duration {
	switch {
	case h.smoothed > 0:
		return min(max(h.smoothed+4*h.variation, leastWait), mostWait)
	case probed > 0:
		return min(max(3*probed, leastWait), mostWait)
	}
	return unknownWait
}

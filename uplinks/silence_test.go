package uplinks

import (
	"testing"
	"time"
)

// silenceRig feeds a Silence readings 125 ms apart.
type silenceRig struct {
	Silence
	now   time.Time
	total Counters
	asked []time.Duration // after the start
	start time.Time
}

func newSilenceRig() *silenceRig {
	start := time.Unix(1000, 0)
	return &silenceRig{now: start, start: start}
}

// for what time so many bytes are received and sent in each reading.
func (r *silenceRig) carry(d time.Duration, rx, tx uint64) *silenceRig {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(125 * time.Millisecond)
		r.total.RxBytes += rx
		r.total.TxBytes += tx
		if r.Observe(r.now, r.total) {
			r.asked = append(r.asked, r.now.Sub(r.start))
		}
	}
	return r
}

// TestSilence: which ends of traffic are worth a question, within half a second.
func TestSilence(t *testing.T) {
	const s = time.Second
	for name, c := range map[string]struct {
		rig  *silenceRig
		want int
	}{
		"nothing ever":                       {newSilenceRig().carry(10*s, 0, 0), 0},
		"only sending":                       {newSilenceRig().carry(10*s, 0, 5000), 0},
		"a download stops":                   {newSilenceRig().carry(2*s, 50000, 1000).carry(5*s, 0, 0), 1},
		"a download stops with stragglers":   {newSilenceRig().carry(2*s, 50000, 1000).carry(s/4, 300, 0).carry(5*s, 0, 0), 1},
		"a download stops with one later":    {newSilenceRig().carry(2*s, 50000, 1000).carry(s/4, 0, 0).carry(s/8, 130, 0).carry(5*s, 0, 0), 1},
		"chatter after a download":           {newSilenceRig().carry(2*s, 50000, 1000).carry(3*s, 300, 300).carry(5*s, 0, 0), 0},
		"an upload is not acknowledged":      {newSilenceRig().carry(2*s, 500, 50000).carry(s/2, 0, 50000).carry(4*s, 0, 0), 1},
		"chatter ends":                       {newSilenceRig().carry(2*s, 500, 500).carry(5*s, 0, 0), 0},
		"a stream out after a question":      {newSilenceRig().carry(s/4, 300, 100).carry(10*s, 0, 9000), 1},
		"a stream out long after a question": {newSilenceRig().carry(s/4, 300, 100).carry(4*s, 0, 0).carry(10*s, 0, 9000), 0},
		"a reading now and then with none":   {newSilenceRig().carry(2*s, 9000, 900).carry(s/8, 0, 900).carry(2*s, 9000, 900).carry(s/8, 0, 900), 0},
	} {
		if n := len(c.rig.asked); n != c.want {
			t.Errorf("%s: %d questions, want %d", name, n, c.want)
		}
	}
	r := newSilenceRig().carry(2*s, 50000, 1000)
	r.carry(s, 0, 0)
	if took := r.asked[0] - 2*s; took > s/2 {
		t.Errorf("asked after %s", took)
	}
}

// TestSilenceOfVideo: a stream in pieces, with a pause after each, is asked about less and less.
func TestSilenceOfVideo(t *testing.T) {
	r := newSilenceRig()
	for range 360 {
		r.carry(2*time.Second, 100_000, 1000).carry(8*time.Second, 0, 0)
	}
	if n := len(r.asked); n > 80 {
		t.Errorf("%d questions in an hour", n)
	}
}

// TestSilenceAfterAPause: a machine that stood still, and a device that is new, know nothing.
func TestSilenceAfterAPause(t *testing.T) {
	r := newSilenceRig().carry(2*time.Second, 50000, 1000)
	r.now = r.now.Add(10 * time.Second)
	r.carry(2*time.Second, 0, 0)
	r.total = Counters{}
	r.carry(2*time.Second, 0, 0)
	if len(r.asked) > 0 {
		t.Errorf("asked after %v", r.asked)
	}
}

// Package history remembers what the uplinks carried, how well they were and what happened: the last minutes by the second, the
// last day by the minute, which outlives the daemon. It is of bounded size, whatever comes.
package history

import (
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"tapgw/api"
)

const (
	seconds    = 15 * 60 // that are remembered one by one
	minutes    = 24 * 60
	minute     = 60 // seconds
	maxUplinks = 32
	maxEvents  = 500
	late       = 5 // seconds after which a look still tells of the time since the one before
)

// Point is an uplink at one moment, or on average.
type Point struct {
	Rx    float32 `json:"rx"` // bits per second
	Tx    float32 `json:"tx"`
	Load  float32 `json:"load"` // 0–1 of capacity
	RTT   float32 `json:"rtt"`  // milliseconds, 0 while not measured
	Loss  float32 `json:"loss"` // 0–1
	State string  `json:"state"`
}

// Sample is a Point of the uplink called Name.
type Sample struct {
	Name string
	Point
}

// History may be used concurrently. Make it with New.
type History struct {
	mu      sync.Mutex
	uplinks map[string]*track
	events  []api.Event // the oldest first
}

// New returns a history of nothing.
func New() *History { return &History{uplinks: make(map[string]*track)} }

// track is what is known of one uplink.
type track struct {
	seconds, minutes ring
	sum              sum
	last             int64 // second
}

func newTrack() *track {
	return &track{seconds: newRing(seconds), minutes: newRing(minutes), sum: sum{minute: -1}}
}

// Observe takes the uplinks as they are now; it is meant to be called once a second.
func (h *History) Observe(now time.Time, samples []Sample) {
	at := now.Unix()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range samples {
		h.of(samples[i].Name).add(at, samples[i].Point)
	}
}

// of finds or makes an uplink's track. The one that was not seen for longest makes room.
func (h *History) of(name string) *track {
	if t := h.uplinks[name]; t != nil {
		return t
	}
	if len(h.uplinks) >= maxUplinks {
		stalest := slices.MinFunc(slices.Collect(maps.Keys(h.uplinks)), func(a, b string) int {
			return int(h.uplinks[a].last - h.uplinks[b].last)
		})
		delete(h.uplinks, stalest)
	}
	t := newTrack()
	h.uplinks[name] = t
	return t
}

func (t *track) add(at int64, p Point) {
	for missed := t.last + 1; t.last >= at-late && missed < at; missed++ {
		t.seconds.put(missed, p) // no machine is so idle that each second has its look
	}
	t.last = at
	t.seconds.put(at, p)
	if t.sum.minute != at/minute {
		t.closeMinute()
		t.sum = t.begin(at)
	}
	t.sum.add(p, 1)
}

// begin is the sum of a minute that begins, or of which the first seconds were in an earlier life.
func (t *track) begin(at int64) sum {
	s := sum{minute: at / minute}
	if p, known := t.minutes.get(s.minute); known {
		s.add(p, float64(max(1, at%minute)))
	}
	return s
}

// closeMinute puts the mean of what came since the minute began in its place.
func (t *track) closeMinute() {
	if t.sum.count > 0 {
		t.minutes.put(t.sum.minute, t.sum.mean())
	}
}

// Event takes something that happened.
func (h *History) Event(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.events = append(h.events, e); len(h.events) > maxEvents {
		h.events = slices.Delete(h.events, 0, len(h.events)-maxEvents)
	}
}

// Events returns what happened, the oldest first; never nil.
func (h *History) Events() []api.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]api.Event{}, h.events...)
}

// Span returns one of the spans of package api that ends now; ok is false of any other.
func (h *History) Span(now time.Time, span string) (answer api.History, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch span {
	case api.SpanLive:
		return h.cut(now.Unix(), 1, seconds, func(t *track) *ring { return &t.seconds }), true
	case api.SpanHour, api.SpanDay:
		length := int64(minutes)
		if span == api.SpanHour {
			length = minute
		}
		return h.cut(now.Unix(), minute, length, func(t *track) *ring { t.closeMinute(); return &t.minutes }), true
	}
	return answer, false
}

// cut makes series of the last points of one ring of each uplink that has any.
func (h *History) cut(now, step, length int64, of func(*track) *ring) api.History {
	first := now/step - length + 1
	answer := api.History{From: time.Unix(first*step, 0).UTC(), StepS: step}
	for _, name := range slices.Sorted(maps.Keys(h.uplinks)) {
		if u := of(h.uplinks[name]).series(first, length, step); len(u.States) > 0 {
			u.Name = name
			answer.Uplinks = append(answer.Uplinks, u)
		}
	}
	return answer
}

// ring is the points of the latest slots of time.
type ring struct {
	slots  []int64
	points []Point
}

func newRing(n int) ring { return ring{make([]int64, n), make([]Point, n)} }

func (r *ring) put(slot int64, p Point) {
	i := slot % int64(len(r.slots))
	r.slots[i], r.points[i] = slot, p
}

func (r *ring) get(slot int64) (Point, bool) {
	i := slot % int64(len(r.slots))
	return r.points[i], r.slots[i] == slot
}

func (r *ring) series(first, length, step int64) (u api.HistoryUplink) {
	state := ""
	add := func(s *api.Series, v float32, known bool) {
		if !known {
			v = float32(math.NaN())
		}
		*s = append(*s, float64(v))
	}
	for slot := first; slot < first+length; slot++ {
		p, known := r.get(slot)
		if !known {
			p = Point{}
		}
		add(&u.RxBps, p.Rx, known)
		add(&u.TxBps, p.Tx, known)
		add(&u.Load, p.Load, known)
		add(&u.RTTMs, p.RTT, known && p.RTT > 0)
		add(&u.Loss, p.Loss, known)
		if p.State != state {
			state = p.State
			u.States = append(u.States, api.StateChange{At: time.Unix(slot*step, 0).UTC(), State: state})
		}
	}
	return u
}

// sum is what came in one minute.
type sum struct {
	minute                  int64
	count, answered         float64
	rx, tx, load, rtt, loss float64
	state                   string
}

// add takes what was so for some seconds.
func (s *sum) add(p Point, seconds float64) {
	s.count += seconds
	s.rx += seconds * float64(p.Rx)
	s.tx += seconds * float64(p.Tx)
	s.load += seconds * float64(p.Load)
	s.loss += seconds * float64(p.Loss)
	if p.RTT > 0 {
		s.answered += seconds
		s.rtt += seconds * float64(p.RTT)
	}
	if slices.Index(worse, p.State) >= slices.Index(worse, s.state) {
		s.state = p.State
	}
}

// worse are the states from the best to the worst, as a minute shows the worst that was in it.
var worse = []string{"", api.StateUp, api.StateProbing, api.StateDisabled, api.StateDegraded, api.StatePortal, api.StateDown}

func (s *sum) mean() Point {
	return Point{
		Rx: brief(s.rx / s.count), Tx: brief(s.tx / s.count), Load: brief(s.load / s.count), Loss: brief(s.loss / s.count),
		RTT: brief(s.rtt / max(s.answered, 1)), State: s.state,
	}
}

// brief rounds to three digits, which is what a picture shows and a file holds in little room.
func brief(v float64) float32 {
	if v == 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	return float32(math.Round(v/unit) * unit)
}

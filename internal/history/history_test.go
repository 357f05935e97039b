package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tapgw/api"
)

// noon is a whole minute.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func up(name string, rx float32) Sample {
	return Sample{name, Point{Rx: rx, Tx: rx / 10, Load: 0.5, RTT: 20, State: api.StateUp}}
}

// watch observes an uplink once a second.
func watch(h *History, from time.Time, d time.Duration, s Sample) time.Time {
	for at := from; at.Before(from.Add(d)); at = at.Add(time.Second) {
		h.Observe(at, []Sample{s})
	}
	return from.Add(d)
}

func span(t *testing.T, h *History, now time.Time, which string) api.History {
	t.Helper()
	answer, ok := h.Span(now, which)
	if !ok {
		t.Fatalf("no span %q", which)
	}
	return answer
}

func last(s api.Series) float64 { return s[len(s)-1] }

func TestSecondsEndNow(t *testing.T) {
	h := New()
	now := watch(h, noon, 10*time.Second, up("fibre", 5e6)).Add(-time.Second)
	live := span(t, h, now, api.SpanLive)
	if len(live.Uplinks) != 1 || live.StepS != 1 || !live.From.Equal(now.Add(-(seconds-1)*time.Second)) {
		t.Fatalf("from %s by %d s, %d uplinks", live.From, live.StepS, len(live.Uplinks))
	}
	rx := live.Uplinks[0].RxBps
	if len(rx) != seconds || last(rx) != 5e6 || rx[seconds-10] != 5e6 || !math.IsNaN(rx[seconds-11]) {
		t.Errorf("%d values that end with %v", len(rx), rx[max(0, len(rx)-12):])
	}
	want := []api.StateChange{{At: noon, State: api.StateUp}}
	if diff := cmp.Diff(want, live.Uplinks[0].States); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if old := span(t, h, now.Add(seconds*time.Second), api.SpanLive); len(old.Uplinks) != 0 {
		t.Errorf("what is too old is still there: %v", old.Uplinks)
	}
}

// TestLateLooks: a busy machine leaves no holes, and a suspended one does.
func TestLateLooks(t *testing.T) {
	h := New()
	for _, at := range []int{0, late, 2*late + 1} {
		h.Observe(noon.Add(time.Duration(at)*time.Second), []Sample{up("fibre", float32(1+at))})
	}
	rx := span(t, h, noon.Add((2*late+1)*time.Second), api.SpanLive).Uplinks[0].RxBps
	got := fmt.Sprint(rx[len(rx)-2*late-2:])
	if want := "[1 6 6 6 6 6 NaN NaN NaN NaN NaN 12]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestMinutesAreMeans(t *testing.T) {
	h := New()
	now := watch(h, noon, 30*time.Second, up("fibre", 2e6))
	now = watch(h, now, 30*time.Second, up("fibre", 4e6))
	h.Observe(now, []Sample{up("fibre", 9e6)})
	for _, which := range []string{api.SpanHour, api.SpanDay} {
		u := span(t, h, now, which).Uplinks[0]
		if n := len(u.RxBps); u.RxBps[n-2] != 3e6 || u.RxBps[n-1] != 9e6 || u.RTTMs[n-2] != 20 {
			t.Errorf("%s ends with %v, RTT %v", which, u.RxBps[n-3:], u.RTTMs[n-3:])
		}
	}
}

// TestMinuteShowsItsWorstState: an outage of a second is not lost in a minute that was fine.
func TestMinuteShowsItsWorstState(t *testing.T) {
	h := New()
	now := watch(h, noon, 20*time.Second, up("fibre", 1e6))
	h.Observe(now, []Sample{{"fibre", Point{State: api.StateDown, Loss: 1}}})
	now = watch(h, now.Add(time.Second), time.Minute, up("fibre", 1e6))
	want := []api.StateChange{{At: noon, State: api.StateDown}, {At: noon.Add(time.Minute), State: api.StateUp}}
	got := span(t, h, now, api.SpanHour).Uplinks[0]
	if diff := cmp.Diff(want, got.States); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if rtt := got.RTTMs[len(got.RTTMs)-2]; rtt != 20 {
		t.Errorf("the mean RTT is %v: what was not measured counts", rtt)
	}
}

func TestRestart(t *testing.T) {
	before := New()
	now := watch(before, noon, 5*time.Minute, up("fibre", 123456789))
	before.Event(api.Event{Time: noon, Kind: api.EventState, Uplink: "fibre", From: api.StateUp, To: api.StateDown, Message: "no reply"})
	after := New()
	if err := after.Restore(before.Render(now)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(span(t, before, now, api.SpanDay), span(t, after, now, api.SpanDay), equalNaN); diff != "" {
		t.Errorf("the day (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before.Events(), after.Events()); diff != "" {
		t.Errorf("the events (-before +after):\n%s", diff)
	}
	if rx := span(t, after, now, api.SpanDay).Uplinks[0].RxBps; rx[len(rx)-2] != 123e6 {
		t.Errorf("the last minute has %v", rx[len(rx)-2])
	}
	now = watch(after, now.Add(time.Minute), 2*time.Minute, up("fibre", 1e6))
	u := span(t, after, now, api.SpanHour).Uplinks[0].RxBps
	if n := len(u); u[n-2] != 1e6 || !math.IsNaN(u[n-4]) || u[n-5] != 123e6 {
		t.Errorf("after the gap: %v", u[n-6:])
	}
}

// TestRestartWithinAMinute: its mean is of both lives.
func TestRestartWithinAMinute(t *testing.T) {
	before, after := New(), New()
	now := watch(before, noon, 20*time.Second, up("fibre", 9e6))
	if err := after.Restore(before.Render(now)); err != nil {
		t.Fatal(err)
	}
	now = watch(after, noon.Add(20*time.Second), 40*time.Second, up("fibre", 3e6))
	if rx := span(t, after, now.Add(-time.Second), api.SpanHour).Uplinks[0].RxBps; rx[len(rx)-1] != 5e6 {
		t.Errorf("20 s of 9 Mbit/s and 40 s of 3 make %v", rx[len(rx)-1])
	}
}

var equalNaN = cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })

// busy is as much as there can be, with numbers that compress badly.
func busy() (h *History, now time.Time) {
	h = New()
	random := rand.New(rand.NewPCG(1, 2))
	for m := range 2 * minutes {
		now = noon.Add(time.Duration(m) * time.Minute)
		for i := range maxUplinks {
			p := Point{Rx: 1e9 * random.Float32(), Tx: 1e8 * random.Float32(), Load: random.Float32(), RTT: 300 * random.Float32(), Loss: random.Float32(), State: api.StateUp}
			h.Observe(now, []Sample{{fmt.Sprintf("uplink%d", i), p}})
		}
	}
	for i := range 2 * maxEvents {
		h.Event(api.Event{Time: now, Kind: api.EventRepair, Message: fmt.Sprint(i, random.Uint64())})
	}
	return h, now
}

func TestBounds(t *testing.T) {
	h, now := busy()
	if n := len(h.Events()); n != maxEvents {
		t.Errorf("%d events, want %d", n, maxEvents)
	}
	data := h.Render(now)
	if len(data) > maxFile {
		t.Errorf("the file has %d bytes", len(data))
	}
	after := New()
	if err := after.Restore(data); err != nil {
		t.Fatal(err)
	}
	day := span(t, after, now, api.SpanDay)
	if rx := day.Uplinks[0].RxBps; len(day.Uplinks) != maxUplinks || math.IsNaN(last(rx)) {
		t.Errorf("%d uplinks, the last of which ends with %v", len(day.Uplinks), rx[len(rx)-2:])
	}
	for i := range 3 * maxUplinks {
		h.Observe(now.Add(time.Minute), []Sample{up(fmt.Sprintf("new%d", i), 1)})
	}
	if len(h.uplinks) != maxUplinks {
		t.Errorf("%d uplinks are remembered, more than %d", len(h.uplinks), maxUplinks)
	}
}

func TestDamagedFiles(t *testing.T) {
	whole := New()
	now := watch(whole, noon, 3*time.Minute, up("fibre", 1e6))
	data := whole.Render(now)
	flipped := slices.Clone(data)
	flipped[len(data)/2] ^= 0x10
	for name, bad := range map[string][]byte{
		"nothing": {}, "half": data[:len(data)/2], "a bit flipped": flipped, "text": []byte("history"), "zeros": make([]byte, 4096),
		"another version": zipped(`{"version":2}`), "no such state": zipped(`{"version":1,"uplinks":{"a":[{"t":1,"state":"<b>"}]}}`),
		"negative": zipped(`{"version":1,"uplinks":{"a":[{"t":1,"rx":-1,"state":"up"}]}}`),
		"far away": zipped(`{"version":1,"uplinks":{"a":[{"t":9223372036854775807,"state":"up"}]}}`),
		"a bomb":   zipped(strings.Repeat(" ", maxText+1)),
	} {
		h := New()
		if err := h.Restore(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
		if len(h.uplinks) > 0 || len(h.events) > 0 {
			t.Errorf("%s: something was taken", name)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(`{"version":1,"uplinks":{"fibre":[{"t":29696400,"rx":1e6,"tx":0,"load":0,"rtt":3,"loss":0,"state":"up"}]},"events":[]}`)
	f.Add(`{"version":1,"uplinks":{"":[{"t":1}]},"events":[{"kind":"state"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		h := New()
		if h.Restore(zipped(text)) != nil {
			return
		}
		for _, which := range api.Spans() {
			if _, err := json.Marshal(span(t, h, noon, which)); err != nil {
				t.Fatal(err)
			}
		}
		again := New()
		if err := again.Restore(h.Render(noon)); err != nil {
			t.Fatalf("what was taken is not taken again: %v", err)
		}
	})
}

func TestObserveDoesNotAllocate(t *testing.T) {
	h, samples := New(), []Sample{up("fibre", 1), up("cable", 2)}
	at := noon
	h.Observe(at, samples)
	if n := testing.AllocsPerRun(200, func() { at = at.Add(time.Second); h.Observe(at, samples) }); n > 0 {
		t.Errorf("%v allocations a second", n)
	}
}

func zipped(text string) []byte {
	var b bytes.Buffer
	pack(&b, []byte(text))
	return b.Bytes()
}

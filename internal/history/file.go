package history

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"tapgw/api"
)

const (
	version = 1
	// maxFile is how large a file may be; what does not fit is forgotten, the oldest first.
	maxFile = 1 << 20
	// maxText is how large it may become when unpacked, which bounds what a wrong file costs.
	maxText = 32 << 20
)

// file is what is written down, as JSON.
type file struct {
	Version int                `json:"version"`
	Uplinks map[string][]dated `json:"uplinks"`
	Events  []api.Event        `json:"events"`
}

// dated is a Point of a minute since 1970.
type dated struct {
	Minute int64 `json:"t"`
	Point
}

// Render returns the last day, compressed.
func (h *History) Render(now time.Time) []byte {
	for length := int64(minutes); ; length /= 2 {
		if data := h.render(now.Unix()/minute-length, length == 0); len(data) <= maxFile {
			return data
		}
	}
}

// render leaves out the minutes up to one, and the events where even they are too much.
func (h *History) render(after int64, bare bool) []byte {
	f := file{Version: version, Uplinks: make(map[string][]dated), Events: []api.Event{}}
	if !bare {
		f.Events = h.Events()
	}
	h.mu.Lock()
	for name, t := range h.uplinks {
		t.closeMinute()
		f.Uplinks[name] = t.minutes.after(after)
	}
	h.mu.Unlock()
	text, err := json.Marshal(f)
	if err != nil {
		panic(fmt.Sprintf("history: plain values must encode: %v", err))
	}
	var b bytes.Buffer
	pack(&b, text)
	return b.Bytes()
}

// pack compresses text into memory, which cannot fail.
func pack(b *bytes.Buffer, text []byte) {
	z := gzip.NewWriter(b)
	_, _ = z.Write(text)
	_ = z.Close()
}

func (r *ring) after(slot int64) []dated {
	list := []dated{}
	for i, at := range r.slots {
		if at > slot {
			list = append(list, dated{at, r.points[i]})
		}
	}
	slices.SortFunc(list, func(a, b dated) int { return int(a.Minute - b.Minute) })
	return list
}

// Restore adds what Render returned in an earlier life. Of data that it did not return, nothing is taken.
func (h *History) Restore(data []byte) error {
	f, err := parse(data)
	if err != nil {
		return err
	}
	for _, e := range f.Events {
		h.Event(e)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.Uplinks)) {
		t := h.of(name)
		for _, p := range f.Uplinks[name] {
			t.minutes.put(p.Minute, p.Point)
			t.last = max(t.last, p.Minute*minute)
		}
	}
	return nil
}

func parse(data []byte) (f file, err error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return f, err
	}
	text, err := io.ReadAll(io.LimitReader(z, maxText+1)) // to its end, where the checksum is
	if err != nil {
		return f, err
	}
	if len(text) > maxText {
		return f, fmt.Errorf("larger than %d bytes", maxText)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, err
	}
	return f, f.check()
}

// maxMinute is in a year that has four digits, as JSON can express.
const maxMinute = 253402300799 / minute

func (f *file) check() error {
	if f.Version != version || len(f.Uplinks) > maxUplinks || len(f.Events) > maxEvents {
		return fmt.Errorf("version %d with %d uplinks and %d events", f.Version, len(f.Uplinks), len(f.Events))
	}
	for name, list := range f.Uplinks {
		if len(list) > minutes {
			return fmt.Errorf("%d minutes of %q", len(list), name)
		}
		for _, p := range list {
			if p.Minute <= 0 || p.Minute > maxMinute || !p.sound() {
				return fmt.Errorf("minute %d of %q", p.Minute, name)
			}
		}
	}
	return nil
}

func (p *Point) sound() bool {
	for _, v := range []float32{p.Rx, p.Tx, p.Load, p.RTT, p.Loss} {
		if v < 0 || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return slices.Contains(worse, p.State)
}

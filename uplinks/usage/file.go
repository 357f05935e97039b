package usage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// version of the file; one of another is not read.
const version = 1

// MaxFile is more bytes than Render ever returns.
const MaxFile = 256 << 10

// Bounds of what a file may hold.
const (
	maxName = 64 // bytes, of an uplink's name and a boot's identity
	maxDay  = 31
)

// file is the form in which a ledger outlives the daemon.
type file struct {
	Version int               `json:"version"`
	Uplinks map[string]*entry `json:"uplinks"`
}

// Render returns the ledger as a file.
func (l *Ledger) Render() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := json.MarshalIndent(file{version, l.entries}, "", "\t")
	if err != nil {
		panic(fmt.Sprintf("usage: numbers, names and dates must encode: %v", err)) // JSON has a form for all of them
	}
	return append(data, '\n')
}

// Parse reads what Render wrote, and refuses everything else.
func Parse(data []byte) (*Ledger, error) {
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("not a file of used data: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a file of used data: something follows it")
	}
	if f.Version != version {
		return nil, fmt.Errorf("version %d, this program reads %d", f.Version, version)
	}
	if len(f.Uplinks) > maxEntries {
		return nil, fmt.Errorf("%d uplinks are more than %d", len(f.Uplinks), maxEntries)
	}
	l := New()
	for name, e := range f.Uplinks {
		if e == nil || !e.valid() || len(name) > maxName {
			return nil, fmt.Errorf("the entry of uplink %.80q makes no sense", name)
		}
		l.entries[name] = e
	}
	return l, nil
}

func (e *entry) valid() bool {
	for i, p := range e.Periods {
		if p.Start == (Date{}) || slices.ContainsFunc(e.Periods[:i], func(o period) bool { return o.Start == p.Start }) {
			return false
		}
	}
	return e.Day >= 1 && e.Day <= maxDay && e.Index >= 0 && len(e.Boot) <= maxName && len(e.Periods) <= maxPeriods
}

package text

import (
	"bytes"
	"slices"
)

// Edits are changes of a payload that have been decided but not made.
type Edits struct {
	list   []edit
	failed bool // a change did not fit the bounds, so that none may be made
}

type edit struct {
	at   Span
	with string
}

// MaxEdits bounds the changes of one payload, and MaxGrowth what each of them adds, bytes.
const (
	MaxEdits  = 64
	MaxGrowth = 48 // an IPv6 endpoint in the place of the shortest
)

// Replace puts text in the place of a span that no other edit touches. What would change nothing is left out.
func (e *Edits) Replace(b []byte, at Span, with string) {
	if string(at.Of(b)) == with {
		return
	}
	if len(e.list) == MaxEdits || len(with) > at.End-at.First+MaxGrowth {
		e.failed = true
		return
	}
	e.list = append(e.list, edit{at, with})
}

// Growth is by how many bytes the edits within a span change its length.
func (e *Edits) Growth(within Span) (n int) {
	for _, c := range e.list {
		if within.First <= c.at.First && c.at.End <= within.End {
			n += len(c.with) - (c.at.End - c.at.First)
		}
	}
	return n
}

// Apply returns b with the changes made: b itself when there are none or they exceed the bounds, else a new slice.
func (e *Edits) Apply(b []byte) []byte {
	if len(e.list) == 0 || e.failed {
		return b
	}
	slices.SortFunc(e.list, func(x, y edit) int { return x.at.First - y.at.First })
	var out bytes.Buffer
	out.Grow(len(b) + len(e.list)*MaxGrowth)
	done := 0
	for _, c := range e.list {
		out.Write(b[done:c.at.First])
		out.WriteString(c.with)
		done = c.at.End
	}
	out.Write(b[done:])
	return out.Bytes()
}

package text

import "tapgw/helper"

// Opening is whether a connection speaks the protocol of its port at all: it may have turned to TLS, and a web page can have
// a browser send what looks like that protocol later on. The first payload of the inside decides.
type Opening struct{ begun, foreign bool }

// Read looks at a payload, of which is says whether the protocol begins so, and reports whether it is to be read.
func (o *Opening) Read(d helper.Direction, payload []byte, is func(payload []byte) bool) bool {
	if d == helper.Outbound && !o.begun && !o.foreign {
		o.begun = is(payload)
		o.foreign = !o.begun
	}
	return !o.foreign
}

// Foreign reports that the connection speaks something else.
func (o *Opening) Foreign() bool { return o.foreign }

package e2e

import (
	"testing"

	"tapgw/internal/lab"
)

// dialogue is a conversation that knows what each side sends next.
type dialogue struct {
	*talk
	out, in uint32
}

func (c *dialogue) insideOpens() {
	c.say(tSYN, 100, 0, "")
	c.out = 101
}

func (c *dialogue) remoteAccepts() {
	c.hear(tSYN|tACK, 900, c.out, "")
	c.in = 901
}

func (c *dialogue) insideAcknowledges() { c.say(tACK, c.out, c.in, "") }
func (c *dialogue) remoteAcknowledges() { c.hear(tACK, c.in, c.out, "") }

func (c *dialogue) insideSends() {
	c.say(tACK, c.out, c.in, "data")
	c.out += 4
	c.remoteAcknowledges()
}

func (c *dialogue) remoteSends() {
	c.hear(tACK, c.in, c.out, "data")
	c.in += 4
	c.insideAcknowledges()
}

func (c *dialogue) insideCloses() {
	c.say(tFIN|tACK, c.out, c.in, "")
	c.out++
	c.remoteAcknowledges()
}

func (c *dialogue) remoteCloses() {
	c.hear(tFIN|tACK, c.in, c.out, "")
	c.in++
	c.insideAcknowledges()
}

func (c *dialogue) insideResets()  { c.say(tRST, c.out, 0, "") }
func (c *dialogue) remoteResets()  { c.hear(tRST, c.in, 0, "") }
func (c *dialogue) remoteRefuses() { c.hear(tRST|tACK, 0, c.out, "") }

// move is what a side does, and the state that the session is in afterwards.
type move struct {
	do    func(*dialogue)
	state string
}

// opened are the moves that establish a connection.
var opened = []move{
	{(*dialogue).insideOpens, "opening"}, {(*dialogue).insideOpens, "opening"}, {(*dialogue).remoteAccepts, "opening"},
	{(*dialogue).insideAcknowledges, "established"}, {(*dialogue).insideSends, "established"}, {(*dialogue).remoteSends, "established"},
}

// TestRFC7857_S2_StateMachine: the states of a TCP session and the ways between them are those of RFC 6146 §3.5.2, whichever
// side moves; what changes nothing passes too.
func TestRFC7857_S2_StateMachine(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	for i, walk := range [][]move{
		{{(*dialogue).insideCloses, "closing-out"}, {(*dialogue).remoteSends, "closing-out"}, {(*dialogue).remoteCloses, "closed"},
			{(*dialogue).remoteAcknowledges, "closed"}, {(*dialogue).insideAcknowledges, "closed"}},
		{{(*dialogue).remoteCloses, "closing-in"}, {(*dialogue).insideSends, "closing-in"}, {(*dialogue).insideCloses, "closed"}},
		{{(*dialogue).insideResets, "reset"}, {(*dialogue).insideResets, "reset"}, {(*dialogue).insideSends, "established"},
			{(*dialogue).remoteResets, "reset"}, {(*dialogue).remoteSends, "established"}, {(*dialogue).insideCloses, "closing-out"}},
		{{(*dialogue).insideCloses, "closing-out"}, {(*dialogue).remoteResets, "closed"}},
		{{(*dialogue).insideCloses, "closing-out"}, {(*dialogue).insideResets, "closed"}},
		{{(*dialogue).remoteCloses, "closing-in"}, {(*dialogue).insideResets, "closed"}},
		{{(*dialogue).remoteCloses, "closing-in"}, {(*dialogue).remoteResets, "closed"}},
	} {
		c := &dialogue{talk: r.talk(4000+uint16(i), 80)}
		c.walk(opened)
		c.walk(walk)
		c.insideResets()
		c.walk(opened) // the same addresses and ports are used again
	}
	refused := &dialogue{talk: r.talk(5000, 80)}
	refused.walk([]move{{(*dialogue).insideOpens, "opening"}, {(*dialogue).remoteRefuses, "closed"}})
	refused.walk(opened)
}

func (c *dialogue) walk(moves []move) {
	c.t.Helper()
	for _, m := range moves {
		m.do(c)
		c.expect(m.state)
	}
}

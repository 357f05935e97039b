package text

import (
	"strings"
	"testing"
)

// values are the headers of a message as "name=value".
func values(b string, m Message) (list []string) {
	for _, h := range m.Headers {
		list = append(list, string(h.Name.Of([]byte(b)))+"="+string(h.Value.Of([]byte(b))))
	}
	return list
}

func TestRead(t *testing.T) {
	for in, want := range map[string]string{
		"GET x\r\nA: 1\r\nB : 2 \r\n\r\nbody": "A=1|B=2|body",
		"GET x\nA:1\n\n":                      "A=1|",
		"GET x\r\n\r\n":                       "",
		"GET x\r\nA: 1,\r\n\t2\r\n 3\r\n\r\n": "A=1,\r\n\t2\r\n 3|",
		"GET x\r\nA:\r\n\r\n":                 "A=|",
		"GET x\r\nA: b:c\r\n\r\n\r\nD: e\r\n": "A=b:c|\r\nD: e\r\n",
	} {
		m, ok := Read([]byte(in), 0)
		if got := strings.Join(append(values(in, m), string(m.Body.Of([]byte(in)))), "|"); !ok || got != want {
			t.Errorf("%q was read as %q", in, got)
		}
	}
	for _, in := range []string{"", "\r\n", "GET", "GET x\r\n", "GET x\r\nA: 1\r\n", "GET x\r\nA\r\n\r\n", "GET x\r\nA: 1\r\n b",
		"GET x\r\n" + strings.Repeat("A: 1\r\n", maxHeaders+1) + "\r\n"} {
		if m, ok := Read([]byte(in), 0); ok {
			t.Errorf("%.20q was read as %+v", in, m)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{
		"a, b ,c": "a|b|c", "": "", "a,": "a|", `"x,\"y", <sip:a,b>, c`: `"x,\"y"|<sip:a,b>|c`, `"open, a`: `"open, a`, `"a\`: `"a\`,
	} {
		var got []string
		Split([]byte(in), Span{0, len(in)}, ',', func(s Span) { got = append(got, in[s.First:s.End]) })
		if strings.Join(got, "|") != want {
			t.Errorf("%q was split into %q", in, got)
		}
	}
}

func TestNumbers(t *testing.T) {
	for in, want := range map[string]uint64{"0": 0, "65535": 65535, "007": 7, "65536": 0, "-1": 0, "+1": 0, "": 0, "1x": 0, " 1": 0, "99999999999999999999999": 0} {
		if n, ok := Number([]byte(in), Span{0, len(in)}, 65536); n != want && ok {
			t.Errorf("%q was read as %d", in, n)
		}
	}
	if _, ok := Port([]byte("0"), Span{0, 1}); ok {
		t.Error("0 was read as a port")
	}
}

func TestEdits(t *testing.T) {
	b := []byte("one two three")
	var e Edits
	e.Replace(b, Span{8, 13}, "3")
	e.Replace(b, Span{0, 3}, "first")
	e.Replace(b, Span{4, 7}, "two")
	if got := string(e.Apply(b)); got != "first two 3" || e.Growth(Span{0, 8}) != 2 || e.Growth(Span{0, 13}) != -2 {
		t.Errorf("became %q, grown by %d and %d", got, e.Growth(Span{0, 8}), e.Growth(Span{0, 13}))
	}
}

// TestEditsBeyondTheBounds: a message that would be changed in part only is not changed.
func TestEditsBeyondTheBounds(t *testing.T) {
	b := []byte(strings.Repeat("x", 2*MaxEdits))
	var many, long Edits
	for i := range MaxEdits + 1 {
		many.Replace(b, Span{i, i + 1}, "y")
	}
	long.Replace(b, Span{0, 1}, "y")
	long.Replace(b, Span{1, 2}, strings.Repeat("y", MaxGrowth+2))
	for _, e := range []Edits{many, long} {
		if got := e.Apply(b); string(got) != string(b) {
			t.Errorf("became %q", got)
		}
	}
}

package usage

import (
	"bytes"
	"strings"
	"testing"
)

const good = `{"version":1,"uplinks":{"lte":{"billing_day":15,"boot":"3c1f","index":4,"rx_bytes":1,"tx_bytes":2,"seen":1763900000,"periods":[{"start":"2026-11-15","bytes":700}],"warned":"","allowed":"2026-11-15"}}}`

// TestFault50_Files: truncated, corrupt and foreign files are refused as a whole.
func TestFault50_Files(t *testing.T) {
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for n := range len(good) {
		if _, err := Parse([]byte(good[:n])); err == nil {
			t.Errorf("accepted the first %d bytes", n)
		}
	}
	for _, change := range [][2]string{
		{`"version":1`, `"version":0`}, {`"version":1`, `"version":2`}, {`"version":1,`, ``}, {`"index":4`, `"index":-4`},
		{`"billing_day":15`, `"billing_day":0`}, {`"billing_day":15`, `"billing_day":32`}, {`700`, `-700`}, {`700`, `1e30`}, {`700`, `"x"`},
		{`"start":"2026-11-15",`, ``}, {`2026-11-15","b`, `2026-11-31","b`}, {`"rx_bytes"`, `"bytes"`}, {`"3c1f"`, `"` + strings.Repeat("x", 100) + `"`},
		{`"lte"`, `"` + strings.Repeat("x", 100) + `"`}, {`700}`, `700},{"start":"2026-11-15","bytes":7}`},
		{`700}`, `700}` + strings.Repeat(`,{"start":"2026-11-01","bytes":7}`, maxPeriods)},
		{good, good + good}, {good, `null`}, {good, `[]`}, {good, `{"version":1,"uplinks":{"lte":null}}`},
	} {
		text := strings.Replace(good, change[0], change[1], 1)
		if l, err := Parse([]byte(text)); err == nil {
			t.Errorf("accepted %s as %s", text, l.Render())
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"version":1,"uplinks":{}}`))
	f.Add([]byte(`{"version":1,"uplinks":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse(data)
		if err != nil {
			return
		}
		l.Count(at(noon), []Sample{sample("lte", "3c1f", 4, 1, 1), sample("dsl", "3c1f", 4, 1, 1)})
		l.Of(at(noon), "lte")
		text := l.Render()
		back, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\nof:\n%s", err, text)
		}
		if again := back.Render(); !bytes.Equal(again, text) {
			t.Fatalf("%s\nbecame\n%s", text, again)
		}
	})
}

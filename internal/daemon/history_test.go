package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/history"
	"tapgw/internal/lab/labtest"
)

// life is the history of one life of the daemon, and what it says.
func life(path string) (p *past, said *bytes.Buffer) {
	said = &bytes.Buffer{}
	p = newPast(slog.New(slog.NewTextHandler(said, nil)))
	p.open(path)
	return p, said
}

// TestHistoryBeginsAnew: a file that nobody can read is moved aside, and one that cannot be written is told of once.
func TestHistoryBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.json.gz")
	first, _ := life(path)
	first.Observe(time.Now(), []history.Sample{{Name: "fibre", Point: history.Point{State: api.StateUp}}})
	first.file.write(first.Render(time.Now()))
	if again, said := life(path); said.Len() > 0 || len(mustSpan(t, again).Uplinks) != 1 {
		t.Errorf("after a restart it says %q", said)
	}
	info, err := os.Stat(path)
	labtest.Must(t, err)
	labtest.Must(t, os.Truncate(path, info.Size()/2))
	anew, said := life(path)
	if !strings.Contains(said.String(), "begins anew") || len(mustSpan(t, anew).Uplinks) != 0 {
		t.Errorf("of half a file it says %q", said)
	}
	if aside, err := os.Stat(path + ".corrupt"); err != nil || aside.Size() != info.Size()/2 {
		t.Errorf("moved aside: %v, %v", aside, err)
	}
	labtest.Must(t, os.Mkdir(path, 0o700)) // which nothing can replace
	said.Reset()
	for range 3 {
		anew.file.write(anew.Render(time.Now()))
	}
	if n := strings.Count(said.String(), "is not written down"); n != 1 {
		t.Errorf("told %d times that it cannot be written", n)
	}
}

func mustSpan(t *testing.T, p *past) api.History {
	t.Helper()
	h, ok := p.Span(time.Now(), api.SpanDay)
	if !ok {
		t.Fatal("no day")
	}
	return h
}

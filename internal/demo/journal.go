package demo

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

// Limits of what is kept of the gateway's log.
const (
	keptLines = 20
	keptBytes = 500 // of a line
)

// journal takes the gateway's log: it keeps the last lines and notices when the gateway says that it is ready.
type journal struct {
	ready chan struct{} // closed then

	mu    sync.Mutex
	log   *slog.Logger
	part  []byte // of a line whose end is still to come
	lines []string
	said  bool
}

func newJournal(log *slog.Logger) *journal { return &journal{ready: make(chan struct{}), log: log} }

// Write never fails.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		j.part = append(j.part, line[:min(len(line), keptBytes-len(j.part))]...)
		if whole {
			j.add(string(j.part))
			j.part = j.part[:0]
		}
		rest = after
	}
	return len(b), nil
}

func (j *journal) add(line string) {
	j.log.Debug("gateway", "line", line)
	if len(j.lines) == keptLines {
		j.lines = append(j.lines[:0], j.lines[1:]...)
	}
	j.lines = append(j.lines, line)
	if !j.said && strings.Contains(line, "ready") {
		j.said = true
		close(j.ready)
	}
}

// tail is what was logged last.
func (j *journal) tail() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

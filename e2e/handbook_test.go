package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tapgw/api"
	"tapgw/internal/handbook"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// looking are the commands that change nothing, and end.
var looking = []string{"status", "uplinks", "sessions", "usage", "version", "config show"}

// TestHandbook: each configuration in README.md and docs/ is right, and each command that only looks does so at a running daemon.
func TestHandbook(t *testing.T) {
	t.Parallel()
	book, err := handbook.Read("..")
	labtest.Must(t, err)
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	g := start(t, topology.Gateway, "uplinks: [{name: fibre, interface: wan1}, {name: lte, interface: wan2}]\n")
	g.awaitState("fibre", api.StateUp)
	g.awaitState("lte", api.StateUp)
	configurations := 0
	for _, b := range book.Blocks {
		if b.Language != "yaml" {
			continue
		}
		configurations++
		file := filepath.Join(t.TempDir(), "tapgw.yaml")
		labtest.Must(t, os.WriteFile(file, []byte(strings.Join(b.Lines, "\n")+"\n"), 0o644))
		if out, status := run(t, topology.Gateway, "config", "check", "--config", file); status != 0 {
			t.Errorf("%s: %s", b.Place, out)
		}
	}
	placeholder := regexp.MustCompile(`\b[A-Z]{2,}\b`)
	tried := 0
	for _, c := range book.Commands {
		line := strings.Join(c.Args, " ")
		looks := slices.ContainsFunc(looking, func(l string) bool { return line == l || strings.HasPrefix(line, l+" ") })
		if !looks || placeholder.MatchString(line) || slices.Contains(c.Args, "--set") {
			continue
		}
		tried++
		if out, status := g.tapgw(c.Args...); status != 0 {
			t.Errorf("%s: tapgw %s: status %d\n%s", c.Place, line, status, out)
		}
	}
	if configurations < 5 || tried < 5 {
		t.Errorf("%d configurations and %d commands were tried", configurations, tried)
	}
}

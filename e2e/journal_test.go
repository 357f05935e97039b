package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// journalled makes a folder the place of /run, where a journal listens, and says that the standard error goes there.
const journalled = `mount --bind %s /run
JOURNAL_STREAM="$(stat -Lc %%d:%%i /proc/self/fd/2)"
export JOURNAL_STREAM`

// TestJournal: under systemd each message is in the journal with its attributes as fields, one of a state by its identifier, and nothing
// of it is there twice. What no journal takes is on the standard error.
func TestJournal(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	run := t.TempDir()
	labtest.Must(t, os.MkdirAll(filepath.Join(run, "systemd/journal"), 0o755))
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(run, "systemd/journal/socket"), Net: "unixgram"})
	labtest.Must(t, err)
	defer journal.Close()
	g := newGateway(t, topology.Gateway, datapath(t))
	g.write(inTurn)
	g.execIn(fmt.Sprintf(journalled, run))
	t.Cleanup(g.stop)

	ready := awaitEntry(t, journal, `(?m)^MESSAGE=ready uplinks=2 `)
	for _, want := range []string{"PRIORITY=6\n", "SYSLOG_IDENTIFIER=tapgw\n", "TAPGW_UPLINKS=2\n", "TAPGW_TAP=tapgw0\n"} {
		if !strings.Contains(ready, want) {
			t.Errorf("no %q in:\n%s", want, ready)
		}
	}
	g.awaitUp(topology)
	labtest.Must(t, topology.Uplinks[0].Link.Cut())
	down := awaitEntry(t, journal, `(?m)^TAPGW_TO=down$`)
	for _, want := range []string{
		"PRIORITY=4\n", "TAPGW_NAME=wan1\n", "TAPGW_EVENT=" + api.EventState + "\n", "TAPGW_FROM=up\n", "TAPGW_REASON=",
		"MESSAGE=uplink name=wan1 family=ipv4 event=state from=up to=down reason=",
	} {
		if !strings.Contains(down, want) {
			t.Errorf("no %q in:\n%s", want, down)
		}
	}
	guide, err := os.ReadFile("../docs/monitoring.md")
	labtest.Must(t, err)
	id := regexp.MustCompile(`(?m)^MESSAGE_ID=([0-9a-f]{32})$`).FindStringSubmatch(down)
	if id == nil || !strings.Contains(string(guide), id[1]) {
		t.Errorf("identifier %q is not in docs/monitoring.md; the entry:\n%s", id, down)
	}
	if g.said("wan1") > 0 {
		t.Error("it is on the standard error too")
	}
	journal.Close()
	labtest.Must(t, topology.Uplinks[0].Link.Mend())
	eventually(t, "a message on the standard error, as no journal listens", func() bool { return g.said("name=wan1", "from=down") > 0 })
}

// awaitEntry reads the journal's socket until an entry matches.
func awaitEntry(t *testing.T, journal *net.UnixConn, pattern string) string {
	t.Helper()
	labtest.Must(t, journal.SetReadDeadline(time.Now().Add(patience)))
	want, buf := regexp.MustCompile(pattern), make([]byte, 64<<10)
	for {
		n, err := journal.Read(buf)
		if err != nil {
			t.Fatalf("no entry %s: %v", pattern, err)
		}
		if want.Match(buf[:n]) {
			return string(buf[:n])
		}
	}
}

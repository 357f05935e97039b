package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestMW3_SIPTester: SIPp calls SIPp through the gateway, over UDP and TCP. Each call comes about, and is told of the outside.
func TestMW3_SIPTester(t *testing.T) {
	t.Parallel()
	sipp, err := exec.LookPath("sipp")
	if err != nil {
		t.Fatal("SIPp is missing: run `make peers`, or install sip-tester")
	}
	w := begin(t, lab.Options{}, inTurn+helping("sip"))
	for name, transport := range map[string]string{"UDP": "u1", "TCP": "t1"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			dir := t.TempDir()
			run := func(ns *lab.Namespace, args ...string) *lab.Cmd {
				c := ns.Command(ctx, sipp, append(args, "-t", transport, "-m", "20", "-nostdin", "-trace_msg",
					"-message_file", filepath.Join(dir, ns.Name()))...)
				c.Dir = dir
				return c
			}
			server := lab.ServerAddrs[0].String()
			called := run(w.Internet, "-sn", "uas", "-i", server, "-p", "5060")
			labtest.Must(t, called.Start())
			listening(t, w, transport == "t1")
			if out, err := run(w.lan, "-sn", "uac", "-i", w.Hosts[0].Addr.String(), "-r", "20", server).CombinedOutput(); err != nil {
				t.Errorf("the caller: %v\n%s", err, out)
			}
			_ = called.Wait() // over TCP it fails because the caller hangs up when it is done
			messages, err := os.ReadFile(filepath.Join(dir, w.Internet.Name()))
			labtest.Must(t, err)
			if n := strings.Count(string(messages), "\nc=IN IP4 100.64."); n != 20 || strings.Contains(string(messages), "\nc=IN IP4 10.0.0.2") {
				t.Errorf("%d calls name the outside, in\n%s", n, messages)
			}
		})
	}
}

// listening waits until a server has port 5060.
func listening(t testing.TB, w world, stream bool) {
	t.Helper()
	table := "/proc/thread-self/net/udp"
	if stream {
		table = "/proc/thread-self/net/tcp"
	}
	eventually(t, "a server on port 5060", func() (found bool) {
		labtest.Must(t, w.Internet.Do(func() error {
			b, err := os.ReadFile(table)
			found = strings.Contains(string(b), ":13C4 ")
			return err
		}))
		return found
	})
}

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
)

// demo is a running `tapgw demo`.
type demo struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr bytes.Buffer
	temp   string // its folder for temporary files
}

func startDemo(t *testing.T) *demo {
	t.Helper()
	labtest.RequireRoot(t)
	d := &demo{t: t, temp: t.TempDir()}
	d.cmd = exec.Command(binary(t), "demo")
	// The settings of the caller's own gateway must not reach the one in the demo.
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.temp, "TAPGW_SOCKET=/nonexistent/tapgw.sock", "TAPGW_POLICY_SCHEDULER=failover")
	d.cmd.Stderr = &d.stderr
	out, err := d.cmd.StdoutPipe()
	labtest.Must(t, err)
	d.stdout = bufio.NewReader(out)
	labtest.Must(t, d.cmd.Start())
	t.Cleanup(func() { _ = d.cmd.Process.Kill() })
	return d
}

// awaitLine reads until a line contains text.
func (d *demo) awaitLine(text string) {
	d.t.Helper()
	for {
		line, err := d.stdout.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			d.t.Fatalf("no line with %q: %v; %s", text, err, d.stderr.String())
		}
	}
}

// finish reads the rest of the output, waits for the end and returns the exit status.
func (d *demo) finish() (output string, status int) {
	d.t.Helper()
	rest, err := io.ReadAll(d.stdout)
	labtest.Must(d.t, err)
	_ = d.cmd.Wait() // the status says it
	return string(rest), d.cmd.ProcessState.ExitCode()
}

// child is the process id of the gateway in the demo.
func (d *demo) child() int {
	d.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.cmd.Process.Pid))
	labtest.Must(d.t, err)
	for _, list := range lists {
		var pid int
		b, err := os.ReadFile(list)
		if _, scan := fmt.Sscan(string(b), &pid); err == nil && scan == nil {
			return pid
		}
	}
	d.t.Fatal("the demo has no child")
	return 0
}

// namespaces are the network namespaces that the demo holds, as links like "net:[4026532000]".
func (d *demo) namespaces() (list []string) {
	d.t.Helper()
	own, err := os.Readlink("/proc/self/ns/net") // which it holds, too, while it looks into another
	labtest.Must(d.t, err)
	for _, link := range links(fmt.Sprintf("/proc/%d/fd/*", d.cmd.Process.Pid)) {
		if strings.HasPrefix(link, "net:[") && link != own && !slices.Contains(list, link) {
			list = append(list, link)
		}
	}
	if len(list) < 5 { // host, gateway, two providers, Internet
		d.t.Fatalf("the demo holds only the namespaces %v", list)
	}
	return list
}

// links returns where the symbolic links of a pattern point to, without those that are gone.
func links(pattern string) (targets []string) {
	names, _ := filepath.Glob(pattern) // the pattern is well-formed
	for _, name := range names {
		if target, err := os.Readlink(name); err == nil {
			targets = append(targets, target)
		}
	}
	return targets
}

// held returns which namespaces any process or mount on this machine still holds.
func held(t *testing.T, namespaces []string) (list []string) {
	t.Helper()
	all := append(links("/proc/[0-9]*/fd/*"), links("/proc/[0-9]*/task/*/ns/net")...)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	labtest.Must(t, err)
	for _, ns := range namespaces {
		if slices.Contains(all, ns) || bytes.Contains(mounts, []byte(ns)) {
			list = append(list, ns)
		}
	}
	return list
}

func deviceNames(t *testing.T) (names []string) {
	t.Helper()
	devices, err := net.Interfaces()
	labtest.Must(t, err)
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return names
}

func TestDemo(t *testing.T) {
	began := time.Now()
	d := startDemo(t)
	output, status := d.finish()
	t.Logf("%s\n%s", output, d.stderr.String())
	if status != 0 || d.stderr.Len() > 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(began); took > 40*time.Second {
		t.Errorf("it took %s, which is long to watch", took)
	}
	for _, line := range []string{
		`multiple of the best alone +\d\.\d\d x +at least 1\.5 x +pass`,
		`cut: new sessions by ISP 2 after +\d\.\d s +at most 3 s +pass`,
		`failed from then on +0 of \d+ +none +pass`,
		`back: new sessions by it after +\d\.\d s +at most 10 s +pass`,
		`both ISPs together +\d+\.\d Mbit/s\n`,
	} {
		if !regexp.MustCompile(line).MatchString(output) {
			t.Errorf("nothing like %q in the output", line)
		}
	}
	for line := range strings.Lines(output) {
		if len(line) > 81 || strings.ContainsFunc(line, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Errorf("not 80 columns of ASCII: %q", line)
		}
	}
	d.expectNoFiles()
}

func (d *demo) expectNoFiles() {
	d.t.Helper()
	left, err := os.ReadDir(d.temp)
	labtest.Must(d.t, err)
	if len(left) > 0 {
		d.t.Errorf("left behind: %v", left)
	}
}

func TestDemoLeavesNothingBehind(t *testing.T) {
	toDemo := func(d *demo) int { return d.cmd.Process.Pid }
	for name, tc := range map[string]struct {
		signal  syscall.Signal
		whom    func(*demo) int
		moment  string // in the output
		message string
	}{
		"Ctrl-C during the downloads":  {syscall.SIGINT, toDemo, "ISP 2 is switched on", "tapgw: interrupted; the demo has left nothing behind\n"},
		"Ctrl-C while one ISP is dead": {syscall.SIGINT, toDemo, "0 new/s   ISP 2", "tapgw: interrupted; the demo has left nothing behind\n"},
		"terminated at the beginning":  {syscall.SIGTERM, toDemo, "1. 16 downloads", "tapgw: interrupted; the demo has left nothing behind\n"},
		"killed":                       {syscall.SIGKILL, toDemo, "ISP 1 alone", ""},
		"the gateway is killed":        {syscall.SIGKILL, (*demo).child, "ISP 1 alone", "tapgw: the gateway ended by itself: signal: killed\nthe last lines of the gateway's log:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			devices := deviceNames(t)
			d := startDemo(t)
			d.awaitLine(tc.moment)
			namespaces, child := d.namespaces(), d.child()
			labtest.Must(t, syscall.Kill(tc.whom(d), tc.signal))
			asked := time.Now()
			_, status := d.finish()
			if took := time.Since(asked); took > 5*time.Second {
				t.Errorf("it took %s to end", took)
			}
			if status == 0 || !strings.HasPrefix(d.stderr.String(), tc.message) || tc.message == "" && d.stderr.Len() > 0 {
				t.Errorf("exit status %d: %s", status, d.stderr.String())
			}
			eventually(t, "the end of all namespaces and of the gateway", func() bool {
				return len(held(t, namespaces)) == 0 && len(links(fmt.Sprintf("/proc/%d/exe", child))) == 0
			})
			d.expectNoFiles()
			if now := deviceNames(t); !slices.Equal(now, devices) {
				t.Errorf("devices before %v, after %v", devices, now)
			}
		})
	}
}

func TestDemoNeedsRoot(t *testing.T) {
	labtest.RequireRoot(t)
	cmd := exec.Command(copyForAll(t, binary(t)), "demo")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput() // the exit status is looked at below
	want := "tapgw: the demo needs root for its network namespaces: run \"sudo tapgw demo\"\n"
	if string(out) != want || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit status %d: %q", cmd.ProcessState.ExitCode(), out)
	}
}

// copyForAll copies a program to where every user may run it.
func copyForAll(t *testing.T, path string) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "tapgw-e2e-")
	labtest.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	labtest.Must(t, os.Chmod(folder, 0o755))
	program, err := os.ReadFile(path)
	labtest.Must(t, err)
	target := filepath.Join(folder, "tapgw")
	syscall.ForkLock.RLock() // a program that another test starts meanwhile would have the file open for writing until it runs
	err = os.WriteFile(target, program, 0o755)
	syscall.ForkLock.RUnlock()
	labtest.Must(t, err)
	return target
}

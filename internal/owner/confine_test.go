package owner

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// sleeper is a process that lives as long as the test.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func groupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	path, ok := unified(string(text))
	if !ok {
		t.Skipf("no cgroup of version 2 is seen: %s", text)
	}
	return path
}

// TestConfine: a process moves below where it is, and back; what has ended leaves nothing.
func TestConfine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	f := finder(t, Wanted{})
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	before := groupOf(t, pid)
	first, err := f.Confine(pid)
	if err != nil {
		t.Fatal(err)
	}
	if got := groupOf(t, pid); got != first || filepath.Dir(first) != before {
		t.Errorf("from %s to %s, said %s", before, got, first)
	}
	if f.Released(first) {
		t.Error("released while its process runs")
	}
	if !f.Release(first) || groupOf(t, pid) != before {
		t.Errorf("back in %s, not %s", groupOf(t, pid), before)
	}
	second, err := f.Confine(pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 2 { // what is gone stays so
		if !f.Released(second) {
			t.Error("not released after its process ended")
		}
	}
	if _, err := os.Stat(f.cgroups.dirOf(second)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if _, err := f.Confine(1 << 30); err == nil {
		t.Error("a process that there is not was confined")
	}
}

// TestConfineKeepsToItsOwn: a journal cannot have other cgroups removed.
func TestConfineKeepsToItsOwn(t *testing.T) {
	for path, want := range map[string]bool{
		"/user.slice/tapgw-exec-1a": true, "/tapgw-exec-x": true, "/user.slice": false, "/": false, "": false, "/tapgw-exec-x/..": false, "/tapgw-exec-x/../a": false,
	} {
		if isConfined(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
	for text, want := range map[string]string{
		"0::/a/b\n": "/a/b", "3:cpu:/x\n0::/\n": "/", "0::/../b\n": "", "1:name=systemd:/x\n": "", "": "", "0::\n": "",
	} {
		if path, ok := unified(text); ok != (want != "") || ok && path != want {
			t.Errorf("%q: %q, %v", text, path, ok)
		}
	}
}

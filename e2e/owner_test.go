package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// nobodyElse is a user without a name and without other processes.
const nobodyElse = 65530

// asked is how a program that runs in the gateway is seen by a server.
func (w world) asked(f *family, program string, attr *syscall.SysProcAttr) (netip.Addr, error) {
	w.t.Helper()
	cmd := w.Gateway.Command(labtest.Context(w.t), program, "-qsS", "--noproxy", "*", "--max-time", "10",
		"http://"+netip.AddrPortFrom(f.servers[0], lab.PortHTTP).String()+"/whoami")
	cmd.SysProcAttr, cmd.Dir = attr, "/"
	out, err := cmd.CombinedOutput()
	seen, bad := netip.ParseAddrPort(string(out))
	if err != nil || bad != nil {
		return netip.Addr{}, fmt.Errorf("%s: %w, %s", program, errors.Join(err, bad), out)
	}
	return seen.Addr(), nil
}

// cgroup makes one, and returns its attribute for a process.
func cgroup(t *testing.T, path string) *syscall.SysProcAttr {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	labtest.Must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			dir := filepath.Join(fields[1], path)
			labtest.Must(t, os.MkdirAll(dir, 0o755))
			t.Cleanup(func() { labtest.Must(t, errors.Join(os.Remove(dir), os.Remove(filepath.Dir(dir)))) })
			group, err := os.Open(dir)
			labtest.Must(t, err)
			t.Cleanup(func() { group.Close() })
			return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		}
	}
	t.Fatal("no cgroup2 is mounted")
	return nil
}

// copyOfCurl is a program of another name, which everybody may run.
func copyOfCurl(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tapgw-e2e")
	labtest.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile("/usr/bin/curl")
	labtest.Must(t, err)
	path := filepath.Join(dir, name)
	labtest.Must(t, os.WriteFile(path, program, 0o755))
	return path
}

// TestHostOwnersInRules: sessions of the host go where rules about user, unit and program say; others, and those of the LAN, do not.
func TestHostOwnersInRules(t *testing.T) {
	t.Parallel()
	number := strconv.Itoa(os.Getpid())
	renamed := copyOfCurl(t, "fetch-"+number)
	w := beginV6(t, lab.Options{}, fmt.Sprintf(`policy: {scheduler: failover}
groups: {second: {uplinks: [wan2], when_down: refuse}}
rules:
  - {name: by-user, users: [%d], use: second}
  - {name: by-unit, units: [backup-%s.service], use: second}
  - {name: by-program, executables: [fetch-%s], use: second}
  - {name: datagrams, users: [root], protocols: [udp], ports: [%d], use: second}
`, nobodyElse, number, number, lab.PortUDPEcho))
	unit := cgroup(t, "/tapgw-e2e-"+number+".slice/backup-"+number+".service")
	const curl = "/usr/bin/curl"
	for _, f := range []*family{overIPv4, overIPv6} {
		first, second := f.own(w.Uplinks[0]), f.own(w.Uplinks[1])
		expect := func(what string, want netip.Addr, got netip.Addr, err error) {
			t.Helper()
			if err != nil || got != want {
				t.Errorf("%s, %s: by %s, %v, want %s", f.name, what, got, err, want)
			}
		}
		got, err := w.asked(f, curl, nil)
		expect("anything", first, got, err)
		got, err = w.asked(f, curl, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyElse, Gid: nobodyElse}})
		expect("a user", second, got, err)
		got, err = w.asked(f, curl, unit)
		expect("a unit", second, got, err)
		got, err = w.asked(f, renamed, nil)
		expect("a program", second, got, err)
		v := visitFor(w.Gateway, f.servers[1], visitPatience)
		expect("a datagram socket without a peer", second, v.outside, v.err)
		v = visitFor(w.lan, f.servers[1], visitPatience)
		expect("a host of the LAN", first, v.outside, v.err)
	}
	sessions, status := w.tapgw("sessions", "--json")
	for _, rule := range []string{"by-user", "by-unit", "by-program", "datagrams"} {
		if status != 0 || !strings.Contains(sessions, `"rule": "`+rule+`"`) {
			t.Errorf("no session shows the rule %s", rule)
		}
	}
}

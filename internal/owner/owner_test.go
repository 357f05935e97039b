package owner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/policy"
)

// talkerEnv makes the test binary a program that talks to the address in it.
const talkerEnv = "TAPGW_TEST_TALKER"

func TestMain(m *testing.M) {
	if to := os.Getenv(talkerEnv); to != "" {
		conn, err := net.Dial("udp", to)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(conn.LocalAddr())
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// stranger is a user that is no other program's.
const stranger = 65531

func finder(t *testing.T, w Wanted) *Finder {
	t.Helper()
	f, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	f.SetWanted(w)
	return f
}

func endpoints(t *testing.T, local, remote net.Addr) (l, r netip.AddrPort) {
	t.Helper()
	l, err := netip.ParseAddrPort(local.String())
	if err != nil {
		t.Fatal(err)
	}
	r, err = netip.ParseAddrPort(remote.String())
	if err != nil {
		t.Fatal(err)
	}
	return l, r
}

// ours is what must be found of a socket of this process.
func ours(t *testing.T) policy.Owner {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return policy.Owner{UID: uint32(os.Getuid()), User: me.Username, Cgroup: cgroupOf(string(text)), Executable: exe}
}

// TestOwnSockets: connections of both families, and sockets of UDP with and without a peer.
func TestOwnSockets(t *testing.T) {
	f, want := finder(t, Wanted{true, true}), ours(t)
	remote := netip.MustParseAddrPort("192.0.2.1:7")
	expect := func(what string, proto uint8, local, remote netip.AddrPort) {
		t.Helper()
		if got, ok := f.Find(proto, local, remote); !ok || got != want {
			t.Errorf("%s from %s to %s: %+v, %v, want %+v", what, local, remote, got, ok, want)
		}
	}
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		from, to := endpoints(t, conn.LocalAddr(), conn.RemoteAddr())
		expect("a connection", unix.IPPROTO_TCP, from, to)
		u, err := net.Dial("udp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		from, to = endpoints(t, u.LocalAddr(), u.RemoteAddr())
		expect("a connected datagram socket", unix.IPPROTO_UDP, from, to)
	}
	for _, network := range []string{"udp4", "udp"} { // the latter is a socket of IPv6 that serves both
		p, err := net.ListenPacket(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		port := uint16(p.LocalAddr().(*net.UDPAddr).Port)
		expect("an open datagram socket ("+network+")", unix.IPPROTO_UDP, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), remote)
	}
}

// TestOnlyTheUser: what no rule wants is not looked for.
func TestOnlyTheUser(t *testing.T) {
	f := finder(t, Wanted{})
	u, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	from, to := endpoints(t, u.LocalAddr(), u.RemoteAddr())
	want := policy.Owner{UID: ours(t).UID, User: ours(t).User}
	if got, ok := f.Find(unix.IPPROTO_UDP, from, to); !ok || got != want {
		t.Errorf("%+v, %v", got, ok)
	}
	f.SetWanted(Wanted{Executable: true})
	if got, _ := f.Find(unix.IPPROTO_UDP, from, to); got.Executable != ours(t).Executable {
		t.Errorf("when it is wanted: %+v", got)
	}
}

// TestNobodys: what no socket sends has no owner, nor has what the kernel cannot be asked about.
func TestNobodys(t *testing.T) {
	f := finder(t, Wanted{true, true})
	here, there := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_GRE} {
		if o, ok := f.Find(proto, netip.AddrPortFrom(here, 1), netip.AddrPortFrom(there, 7)); ok {
			t.Errorf("protocol %d: %+v", proto, o)
		}
	}
	if o, ok := f.Find(unix.IPPROTO_TCP, netip.AddrPort{}, netip.AddrPort{}); ok {
		t.Errorf("of nothing: %+v", o)
	}
}

// child is another process with a socket.
type child struct{ local, remote netip.AddrPort }

// start runs the test binary, or a copy of it, as a talker.
func start(t *testing.T, program string, attr *syscall.SysProcAttr) child {
	t.Helper()
	remote := netip.MustParseAddrPort("127.0.0.1:9")
	cmd := exec.Command(program)
	cmd.Env, cmd.SysProcAttr = []string{talkerEnv + "=" + remote.String()}, attr
	cmd.Dir = "/"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	line, _ := bufio.NewReader(out).ReadString('\n')
	local, err := netip.ParseAddrPort(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return child{local, remote}
}

// privileged skips a test that needs root; CI must have it.
func privileged(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// copyOf copies the test binary to a path that everybody may run.
func copyOf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "owner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile(ours(t).Executable)
	path := filepath.Join(dir, "talker")
	if err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(path, program, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOtherUserAndProgram: another user's process, of a program that is replaced meanwhile.
func TestOtherUserAndProgram(t *testing.T) {
	privileged(t)
	path := copyOf(t)
	c := start(t, path, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f := finder(t, Wanted{Executable: true})
	got, ok := f.Find(unix.IPPROTO_UDP, c.local, c.remote)
	if !ok || got.UID != stranger || got.User != "" || got.Executable != path {
		t.Errorf("%+v, %v", got, ok)
	}
}

// TestCgroup: of a process in a cgroup of its own, found by its number and by the process.
func TestCgroup(t *testing.T) {
	privileged(t)
	groups, err := openCgroups()
	if err != nil {
		t.Fatal(err)
	}
	defer groups.dir.Close()
	path := "/tapgw-test-" + strconv.Itoa(os.Getpid()) + ".slice/browser.service"
	dir := filepath.Join(groups.root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = os.Remove(dir), os.Remove(filepath.Dir(dir)) })
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	c := start(t, ours(t).Executable, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())})
	f := finder(t, Wanted{true, true})
	s, err := f.diag.find(unix.IPPROTO_UDP, c.local, c.remote)
	if err != nil || s.cgroup == 0 {
		t.Errorf("the kernel does not tell the cgroup of a socket: %+v, %v", s, err)
	}
	for _, when := range []string{"first", "again"} {
		if got, err := groups.search(s.cgroup); err != nil || got != path {
			t.Errorf("by search, %s: %q, %v", when, got, err)
		}
	}
	if got, err := groups.search(s.cgroup + 1<<40); err == nil {
		t.Errorf("of a number that none has: %q", got)
	}
	if got, ok := f.Find(unix.IPPROTO_UDP, c.local, c.remote); !ok || got.Cgroup != path || got.Executable != ours(t).Executable {
		t.Errorf("by its number: %+v, %v", got, ok)
	}
	f.cgroups = nil
	f.SetWanted(Wanted{Cgroup: true})
	if got, ok := f.Find(unix.IPPROTO_UDP, c.local, c.remote); !ok || got.Cgroup != path {
		t.Errorf("by the process: %+v, %v", got, ok)
	}
}

func TestCgroupOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/nginx.service\n": "/system.slice/nginx.service",
		"0::/\n":                           "/",
		"9:name=systemd:/user.slice/a:b.scope\n4:memory:/x\n0::/\n": "/user.slice/a:b.scope",
		"9:name=systemd:/\n0::/machine.slice\n":                     "/machine.slice",
		"3:cpu,cpuacct:/x\n1:name=systemd:/user.slice\n":            "/user.slice",
		"4:memory:/x\n":       "",
		"":                    "",
		"::\n0:\n0::\n0::x\n": "",
	} {
		if got := cgroupOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestCgroupMount(t *testing.T) {
	for text, want := range map[string]string{
		"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n":                    "/sys/fs/cgroup",
		"31 23 0:27 / /a rw - cgroup cgroup rw,cpu\n32 23 0:28 / /b rw shared:1 master:2 - cgroup2 none rw\n": "/b",
		"31 23 0:27 / /a rw - cgroup cgroup rw,cpu\n":                                                         "",
		"- cgroup2 x\n\n": "",
	} {
		if got := cgroupMount(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestBounded: ever new sessions and users do not make a finder grow.
func TestBounded(t *testing.T) {
	f := finder(t, Wanted{})
	for n := range 3 * maxKnown {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), 9)
		f.Find(unix.IPPROTO_UDP, from, netip.MustParseAddrPort("127.0.0.1:9"))
		f.userName(uint32(1e6 + n))
	}
	if len(f.known) > maxKnown || len(f.users) > maxKnown {
		t.Errorf("%d sessions, %d users", len(f.known), len(f.users))
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add(make([]byte, answerSize))
	f.Add(append(make([]byte, answerSize), 12, 0, 21, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 0, 1))
	f.Fuzz(func(t *testing.T, m []byte) {
		s, err := parseSocket(m)
		if err == nil && len(m) < answerSize {
			t.Errorf("%+v of %d bytes", s, len(m))
		}
	})
}

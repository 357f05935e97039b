package apiserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tapgw/api"
	"tapgw/internal/owner"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root to start children of other users")
	}
	t.Skip("needs root to start children of other users")
}

// asUser runs child as another user. The test binary lies where only root may look, so it is reached by /proc.
func asUser(t *testing.T, socket string, cred *syscall.Credential) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = []string{childEnv + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return string(out)
}

func manyGroups(n int) []uint32 {
	list := make([]uint32, n)
	for i := range list {
		list[i] = 60000 + uint32(i)
	}
	return list
}

func TestWhoMayChange(t *testing.T) {
	needRoot(t)
	const stranger = 65534
	for _, test := range []struct {
		name    string
		cred    syscall.Credential
		allowed bool
	}{
		{"root", syscall.Credential{}, true},
		{"stranger", syscall.Credential{Uid: stranger, Gid: stranger}, false},
		{"stranger in group root", syscall.Credential{Uid: stranger, Gid: 0}, false},
		{"stranger in other groups", syscall.Credential{Uid: stranger, Gid: stranger, Groups: manyGroups(300)}, false},
		{"member by primary group", syscall.Credential{Uid: stranger, Gid: testGroup}, true},
		{"member by supplementary group", syscall.Credential{Uid: stranger, Gid: stranger, Groups: []uint32{7, testGroup}}, true},
		{"member of many groups", syscall.Credential{Uid: stranger, Gid: stranger, Groups: append(manyGroups(300), testGroup)}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := newFake()
			c, _ := serving(t, fake)
			out := asUser(t, c.Socket, &test.cred)
			if !strings.Contains(out, "read: <nil>") {
				t.Errorf("may not read:\n%s", out)
			}
			changed := strings.Contains(out, "set: <nil>") && strings.Contains(out, "reload: <nil>")
			if changed != test.allowed || len(fake.Calls()) != map[bool]int{true: 2}[test.allowed] {
				t.Errorf("allowed %v, calls %v:\n%s", changed, fake.Calls(), out)
			}
			if want := fmt.Sprintf("kept out of the dashboard: %v", !test.allowed); !strings.Contains(out, want) {
				t.Errorf("%s is not so:\n%s", want, out)
			}
			if !test.allowed && !strings.Contains(out, "usermod -aG tapgw") {
				t.Errorf("no hint:\n%s", out)
			}
			told := map[bool]string{true: "{true } <nil>\n", false: "{false " + joinHint + "} <nil>\n"}[test.allowed]
			if !strings.Contains(out, told) {
				t.Errorf("does not tell beforehand %q:\n%s", told, out)
			}
		})
	}
}

// TestSignInURLsAreForTheirUser: whoever else reads it in the command line of a browser cannot use it, nor use it up.
func TestSignInURLsAreForTheirUser(t *testing.T) {
	needRoot(t)
	finder, err := owner.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(finder.Close)
	at := netip.MustParseAddrPort(freeLoopback(t))
	s := testServer(newFake(), Options{Socket: filepath.Join(open(t), "s"), Dashboard: Dashboard{
		Address: at, Page: page,
		UserOf: func(local, remote netip.AddrPort) (uint32, bool) {
			return finder.User(syscall.IPPROTO_TCP, local, remote)
		},
	}})
	start(t, s)
	const user, thief = 65533, 65534
	visit := func(key string, uid uint32) string {
		return strings.TrimSpace(asUser(t, "http://"+at.String()+"/sign-in?key="+key, &syscall.Credential{Uid: uid, Gid: uid}))
	}
	for _, one := range []struct{ of, by uint32 }{{user, user}, {user, 0}, {0, thief}} {
		key := s.dashboard.keys.issue(&peer{uid: one.of})
		if one.of != 0 {
			if got := visit(key, thief); got != "403" {
				t.Errorf("another user got %s", got)
			}
		}
		if got := visit(key, one.by); got != "200" {
			t.Errorf("that of user %d opened by user %d: %s", one.of, one.by, got)
		}
	}
}

func TestAllowed(t *testing.T) {
	s := testServer(newFake(), Options{})
	if s.allowed(nil) {
		t.Error("a connection without credentials may change things")
	}
	if !s.allowed(&peer{uid: uint32(os.Geteuid())}) {
		t.Error("the daemon's own user may not change things")
	}
	s.groupID = func() (uint32, error) { return 0, errors.New("no such group") }
	if s.allowed(&peer{uid: 65533, groups: []uint32{0}}) {
		t.Error("without a group everybody is in it")
	}
}

func TestConnectionsPerUserAreBounded(t *testing.T) {
	c, _ := serving(t, newFake())
	var held []net.Conn
	defer func() {
		for _, conn := range held {
			conn.Close()
		}
	}()
	for range maxPerUser {
		conn, err := net.Dial("unix", c.Socket)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, api.ErrBusy) {
		t.Fatalf("one too many: %v", err)
	}
	held[0].Close()
	held = held[1:]
	eventually(t, func() bool {
		_, err := c.Status(t.Context())
		return err == nil
	})
}

func TestOneUserLeavesRoomForOthers(t *testing.T) {
	l := newPeerListener(nil)
	users := maxConnections/maxPerUser + 1
	entered := 0
	for uid := 1; uid <= users; uid++ {
		for range maxPerUser + 1 {
			if l.enter(uint32(uid)) {
				entered++
			}
		}
	}
	if entered != maxConnections || !l.enter(0) {
		t.Fatalf("%d entered, and root could not", entered)
	}
	for uid, n := range l.byUser {
		for range n {
			l.leave(uid)
		}
	}
	if l.total != 0 || len(l.byUser) != 0 {
		t.Fatalf("%d left over: %v", l.total, l.byUser)
	}
}

func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	c, stop := start(t, testServer(newFake(), Options{Socket: path}))
	if _, err := c.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket outlives the server: %v", err)
	}
}

func TestSecondServerRefuses(t *testing.T) {
	first, _ := serving(t, newFake())
	err := testServer(newFake(), Options{Socket: first.Socket}).Run(t.Context())
	if !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	mustContain(t, err, first.Socket)
	if _, err := first.Status(t.Context()); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := testServer(newFake(), Options{Socket: path}).Run(t.Context())
	mustContain(t, err, "not a socket", "--socket")
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Error("the file was touched")
	}
	err = testServer(newFake(), Options{Socket: filepath.Join(path, "s")}).Run(t.Context())
	mustContain(t, err, "folder", "--socket")
}

func TestModes(t *testing.T) {
	c, _ := serving(t, newFake())
	for path, want := range map[string]os.FileMode{c.Socket: socketMode, filepath.Dir(c.Socket): socketDirMode} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

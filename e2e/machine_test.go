package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// machine is a Debian system of its own, but for the kernel, in a network namespace of the laboratory. What is changed there is gone at the
// end of the test.
type machine struct {
	t    testing.TB
	ns   *lab.Namespace
	boot *lab.Daemon
	name string // of its cgroup
	pid  string // of its first process, in this system
}

// machines counts them.
var machines atomic.Int32

// inCgroup begins the script of a machine: a cgroup of its own, so that its service manager sees no others.
const inCgroup = `work=$1 lower=$2 name=$3; shift 3
mount -t tmpfs none "$work"
mkdir "$work/upper" "$work/work" "$work/root" "$work/cgroup"
mount -t cgroup2 none "$work/cgroup"
mkdir "$work/cgroup/$name"
echo 0 >"$work/cgroup/$name/cgroup.procs"
exec unshare --cgroup sh -ec "$0" sh "$work" "$lower" "$@"
`

// inRoot ends it: the system as it was made, with changes in memory, and of the kernel's settings only those of the network to be changed.
const inRoot = `work=$1 lower=$2; shift 2
mount -t overlay none -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" "$work/root"
umount "$work/cgroup"
cd "$work/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/net dev/pts dev/shm
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mknod -m 666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . mnt
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -ec 'umount -l /mnt; exec "$@"' sh "$@"
`

// system is what a machine is made of: folders that `make peers` has made, each laid over the next.
func system(t testing.TB, over ...string) string {
	t.Helper()
	var layers []string
	for _, name := range append(over, "root") {
		layer, err := filepath.Abs("../bin/" + name)
		labtest.Must(t, err)
		if _, err := os.Stat(layer); err != nil {
			t.Fatalf("the system for it is missing, run `make peers`: %v", err)
		}
		layers = append(layers, layer)
	}
	return strings.Join(layers, ":")
}

// newMachine starts one with a program as its first process.
func newMachine(t testing.TB, ns *lab.Namespace, lower string, first ...string) *machine {
	t.Helper()
	m := &machine{t: t, ns: ns, name: fmt.Sprintf("tapgw-e2e-%d-%d", os.Getpid(), machines.Add(1))}
	args := []string{"--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-ec", inCgroup, inRoot, t.TempDir(), lower, m.name}
	var err error
	m.boot, err = ns.StartDaemon(func(line string) { t.Log(line) }, "unshare", append(args, first...)...)
	labtest.Must(t, err)
	t.Cleanup(m.end)
	eventually(t, "the first process", func() bool {
		m.pid = m.child()
		root, err := os.Readlink("/proc/" + m.pid + "/exe")
		return m.pid != "" && err == nil && filepath.Base(root) == filepath.Base(first[0])
	})
	return m
}

// child is the process that unshare forked, "" for none yet.
func (m *machine) child() string {
	number := strconv.Itoa(m.boot.PID())
	list, _ := os.ReadFile(filepath.Join("/proc", number, "task", number, "children")) // it may have ended
	first, _, _ := strings.Cut(string(list), " ")
	return first
}

// end kills all of it.
func (m *machine) end() {
	_ = m.boot.Signal(syscall.SIGKILL)
	labtest.Must(m.t, m.boot.AwaitEnd(patience))
	m.removeCgroups()
}

// removeCgroups removes what the service manager made, the inner ones first.
func (m *machine) removeCgroups() {
	script := `mount -t cgroup2 none "$1"; find "$1/$2" -depth -type d -exec rmdir {} +`
	eventually(m.t, "the end of its cgroups", func() bool {
		return exec.Command("unshare", "--mount", "sh", "-ec", script, "sh", m.t.TempDir(), m.name).Run() == nil
	})
}

// path is a file of the machine, as this system sees it.
func (m *machine) path(name string) string { return filepath.Join("/proc", m.pid, "root", name) }

// try runs a program in the machine.
func (m *machine) try(args ...string) (string, error) {
	enter := append([]string{"--target", m.pid, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd"}, args...)
	c := m.ns.Command(labtest.Context(m.t), "nsenter", enter...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// run is try of what must not fail.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// sh is run of a line for the shell.
func (m *machine) sh(line string) string { m.t.Helper(); return m.run("sh", "-ec", line) }

// write makes a file.
func (m *machine) write(name, text string) {
	m.t.Helper()
	writeBelow(m.t, m.path("/"), name, text)
}

// give copies a file of this system to the machine's /tmp, and says where it is there.
func (m *machine) give(file string) string {
	m.t.Helper()
	data, err := os.ReadFile(file)
	labtest.Must(m.t, err)
	name := filepath.Join("/tmp", filepath.Base(file))
	labtest.Must(m.t, os.WriteFile(m.path(name), data, 0o644))
	return name
}

// built is a package of those that `make package` has made, by the ends of its name.
func built(t testing.TB, prefix, suffix string) string {
	t.Helper()
	files, err := filepath.Glob("../bin/packages/" + prefix + "*" + suffix)
	labtest.Must(t, err)
	if len(files) != 1 {
		t.Fatalf("there are %d packages %s…%s, run `make package`", len(files), prefix, suffix)
	}
	return files[0]
}

// service is the daemon of a machine, as the tests know daemons.
func (m *machine) service() *gateway {
	g := &gateway{t: m.t, ns: m.ns, datapath: api.DatapathKernel, family: overIPv4}
	g.client = &api.Client{Socket: m.path(api.DefaultSocket)}
	return g
}

// show is one property of a unit.
func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.run("systemctl", "show", "--value", "--property="+property, unit)
}

// bootMachine starts one with its service manager, and waits until that has started everything.
func bootMachine(t testing.TB, ns *lab.Namespace, over ...string) *machine {
	t.Helper()
	m := newMachine(t, ns, system(t, over...), "/lib/systemd/systemd")
	eventually(t, "the end of the boot", func() bool {
		state, _ := m.try("systemctl", "is-system-running")
		return state == "running" || state == "degraded"
	})
	if failed := m.run("systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Log(fmt.Sprint("failed at boot:\n", failed))
	}
	return m
}

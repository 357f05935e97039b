// Package owner finds out to which process of the host a socket belongs: user, cgroup and program, for rules about them.
package owner

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/policy"
)

const (
	// believed is how long an answer holds: several rules ask for the same session.
	believed = time.Second
	// userBelieved is the same for the names of users.
	userBelieved = time.Minute
	// maxKnown bounds both.
	maxKnown = 1024
)

// Wanted says what rules ask for beside the user. To find a process may take long.
type Wanted struct{ Cgroup, Executable bool }

// Finder finds the owners of sockets. It is safe for concurrent use.
type Finder struct {
	diag      *diag
	cgroups   *cgroups // nil where there are none of version 2
	processes processes
	wanted    atomic.Pointer[Wanted]

	mu    sync.Mutex
	known map[flow]answer
	users map[uint32]name
}

// flow is whose socket is looked for.
type flow struct {
	proto         uint8
	local, remote netip.AddrPort
}

type answer struct {
	policy.Owner
	found bool
	at    time.Time
}

type name struct {
	text string
	at   time.Time
}

// Open returns a finder for the sockets of the network namespace it is called in, which finds no more than their users until SetWanted.
func Open() (*Finder, error) {
	d, err := openDiag()
	if err != nil {
		return nil, fmt.Errorf("ask for the owners of sockets: %w", err)
	}
	f := &Finder{diag: d, known: make(map[flow]answer), users: make(map[uint32]name)}
	if f.cgroups, err = openCgroups(); err != nil {
		f.cgroups = nil // the process tells
	}
	f.SetWanted(Wanted{})
	return f, nil
}

// Close ends it; nothing is found any more.
func (f *Finder) Close() {
	f.diag.close()
	if f.cgroups != nil {
		_ = f.cgroups.dir.Close()
	}
}

// SetWanted says what is to be found out from now on.
func (f *Finder) SetWanted(w Wanted) {
	f.wanted.Store(&w)
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.known)
}

// Find returns the owner of the socket of the host that sends from the local endpoint to the remote; false where there is none, as
// for protocols other than TCP and UDP.
func (f *Finder) Find(proto uint8, local, remote netip.AddrPort) (policy.Owner, bool) {
	if proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP || local.Addr().Is4() != remote.Addr().Is4() {
		return policy.Owner{}, false
	}
	key, now := flow{proto, local, remote}, time.Now()
	f.mu.Lock()
	a, ok := f.known[key]
	f.mu.Unlock()
	if !ok || now.Sub(a.at) >= believed {
		a.Owner, a.found = f.ask(key)
		a.at = now
		f.mu.Lock()
		keep(f.known, key, a)
		f.mu.Unlock()
	}
	return a.Owner, a.found
}

// User returns the number of that of such a socket now.
func (f *Finder) User(proto uint8, local, remote netip.AddrPort) (uid uint32, ok bool) {
	s, err := f.diag.find(proto, local, remote)
	return s.uid, err == nil
}

// keep adds to a map that is begun anew when it is full.
func keep[K comparable, V any](known map[K]V, key K, value V) {
	if len(known) >= maxKnown {
		clear(known)
	}
	known[key] = value
}

// ask finds out what is wanted.
func (f *Finder) ask(of flow) (o policy.Owner, ok bool) {
	s, err := f.diag.find(of.proto, of.local, of.remote)
	if err != nil {
		return o, false
	}
	w := f.wanted.Load()
	o.UID, o.User = s.uid, f.userName(s.uid)
	if f.cgroups != nil && s.cgroup != 0 && (w.Cgroup || w.Executable) {
		o.Cgroup, _ = f.cgroups.path(s.cgroup) // else the process tells
	}
	if w.Executable || w.Cgroup && o.Cgroup == "" {
		f.askProcess(&o, s)
	}
	return o, true
}

// askProcess adds what the process of the socket tells.
func (f *Finder) askProcess(o *policy.Owner, s socket) {
	var near []int
	if o.Cgroup != "" && o.Cgroup != "/" {
		near = f.cgroups.processes(o.Cgroup)
	}
	pid, ok := f.processes.find(s.inode, s.uid, near)
	if !ok {
		return
	}
	o.Executable = executable(pid)
	if o.Cgroup == "" {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup") // it may have ended
		o.Cgroup = cgroupOf(string(text))
	}
}

// userName is that of a user's number, "" when it has none.
func (f *Finder) userName(uid uint32) string {
	now := time.Now()
	f.mu.Lock()
	n, ok := f.users[uid]
	f.mu.Unlock()
	if ok && now.Sub(n.at) < userBelieved {
		return n.text
	}
	n = name{at: now}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		n.text = u.Username
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	keep(f.users, uid, n)
	return n.text
}

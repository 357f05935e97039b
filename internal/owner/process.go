package owner

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// scanFiles is how many open files are looked at for one socket, as the packet waits meanwhile: some tens of milliseconds, but on
	// a machine with more to do than it can scanLimit at most.
	scanFiles = 1 << 15
	scanLimit = 250 * time.Millisecond
	// scanShare of the time at most goes into looks that find nothing, as for sockets of the kernel's.
	scanShare = 4
	// located is how long it is believed which process a socket is of: one of UDP may have sessions with many remotes.
	located = 10 * time.Second
	// maxRecent is how many processes are looked at first, as they had the last sockets.
	maxRecent = 16
	batch     = 256 // names read from a directory at once
)

// processes finds those that have a socket open.
type processes struct {
	mu     sync.Mutex
	recent []int     // the latest first
	rested time.Time // no look at all of them before
	known  map[uint32]place
}

// place is which process a socket was found at.
type place struct {
	pid   int
	found bool
	at    time.Time
}

// find returns a process that has a socket of that inode number open.
func (p *processes) find(inode, uid uint32, near []int) (pid int, ok bool) {
	if inode == 0 {
		return 0, false // the kernel's own
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if at, ok := p.known[inode]; ok && now.Sub(at.at) < located {
		return at.pid, at.found
	}
	resting := now.Before(p.rested)
	if pid, ok = p.look(inode, uid, near); resting && !ok {
		return 0, false // not known, as not all were looked at
	}
	if p.known == nil {
		p.known = make(map[uint32]place)
	}
	keep(p.known, inode, place{pid, ok, now})
	return pid, ok
}

// look looks for it at the recent ones, at those near, and at all, beginning with those of the user.
func (p *processes) look(inode, uid uint32, near []int) (pid int, ok bool) {
	s := scan{left: scanFiles, link: "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]", until: time.Now().Add(scanLimit)}
	pid, ok = s.among(slices.Concat(p.recent, near))
	if !ok {
		pid, ok = p.everywhere(&s, uid)
	}
	if ok {
		p.recent = slices.DeleteFunc(p.recent, func(o int) bool { return o == pid })
		p.recent = slices.Insert(p.recent[:min(len(p.recent), maxRecent-1)], 0, pid)
	}
	return pid, ok
}

// everywhere looks at all processes, unless that was done lately.
func (p *processes) everywhere(s *scan, uid uint32) (pid int, ok bool) {
	begun := time.Now()
	if begun.Before(p.rested) {
		return 0, false
	}
	own, others := running(uid)
	if pid, ok = s.among(own); !ok {
		pid, ok = s.among(others)
	}
	if !ok {
		p.rested = time.Now().Add((scanShare - 1) * time.Since(begun))
	}
	return pid, ok
}

// running lists the processes of a user, and all others, young ones first: they open most of the sockets.
func running(uid uint32) (own, others []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		var st unix.Stat_t
		switch {
		case unix.Stat("/proc/"+e.Name(), &st) != nil:
		case st.Uid == uid:
			own = append(own, pid)
		default:
			others = append(others, pid)
		}
	}
	youngFirst := func(a, b int) int { return b - a }
	slices.SortFunc(own, youngFirst)
	slices.SortFunc(others, youngFirst)
	return own, others
}

// scan is one search for a socket.
type scan struct {
	link  string // as /proc shows it
	left  int    // open files that may still be looked at
	until time.Time
}

func (s *scan) over() bool { return s.left <= 0 || time.Now().After(s.until) }

// among returns the first of the processes that has the socket.
func (s *scan) among(list []int) (pid int, ok bool) {
	for _, pid := range list {
		if s.over() {
			break
		}
		if s.has(pid) {
			return pid, true
		}
	}
	return 0, false
}

// has looks through the open files of a process.
func (s *scan) has(pid int) bool {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return false // it has ended
	}
	defer dir.Close()
	var link [64]byte
	for !s.over() {
		names, err := dir.Readdirnames(batch)
		s.left -= len(names)
		for _, name := range names {
			n, err := unix.Readlinkat(int(dir.Fd()), name, link[:])
			if err == nil && string(link[:n]) == s.link {
				return true
			}
		}
		if err != nil {
			return false // at the end
		}
	}
	return false
}

// executable is the path of the program that a process runs, "" when it has ended.
func executable(pid int) string {
	path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)") // replaced by an update
}

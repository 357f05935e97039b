package apiserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a unix socket, as it was when it connected.
type peer struct {
	uid    uint32
	pid    int32
	groups []uint32 // primary and supplementary
}

// Connections at once. The limit per user keeps one of them from locking the others (above all root) out.
const (
	maxPerUser     = 32
	maxConnections = 256 // of everybody but root
	maxGroups      = 65536
)

// allowed reports whether p may change things. Group membership is that of the process, as for files: who was just
// added to the group must log in again.
func (s *Server) allowed(p *peer) bool {
	if p == nil {
		return false
	}
	if p.uid == 0 || p.uid == uint32(os.Geteuid()) {
		return true
	}
	id, err := s.groupID()
	return err == nil && slices.Contains(p.groups, id)
}

type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	if pc, ok := c.(*peerConn); ok {
		return asPeer(ctx, &pc.peer)
	}
	return ctx
}

func asPeer(ctx context.Context, p *peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(ctx context.Context) *peer {
	p, _ := ctx.Value(peerKey{}).(*peer)
	return p
}

// peerConn is a connection that knows its peer and gives its place back when it closes.
type peerConn struct {
	net.Conn
	peer  peer
	leave func()
}

func (c *peerConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// peerListener accepts connections with known credentials, and no more than the limits.
type peerListener struct {
	*net.UnixListener
	mu     sync.Mutex
	byUser map[uint32]int
	total  int // without root
}

func newPeerListener(l *net.UnixListener) *peerListener {
	return &peerListener{UnixListener: l, byUser: make(map[uint32]int)}
}

// Accept waits for the next connection whose peer is known and below its limit; others are closed.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := credentials(c)
		if err != nil || !l.enter(p.uid) {
			c.Close()
			continue
		}
		return &peerConn{Conn: c, peer: p, leave: sync.OnceFunc(func() { l.leave(p.uid) })}, nil
	}
}

func (l *peerListener) enter(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byUser[uid] >= maxPerUser || uid != 0 && l.total >= maxConnections {
		return false
	}
	l.byUser[uid]++
	if uid != 0 {
		l.total++
	}
	return true
}

func (l *peerListener) leave(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byUser[uid]--; l.byUser[uid] == 0 {
		delete(l.byUser, uid)
	}
	if uid != 0 {
		l.total--
	}
}

// credentials asks the kernel, which recorded them at connect: unlike /proc/PID they cannot change or be another
// process's by now.
func credentials(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var failed error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failed != nil {
			return
		}
		p = peer{uid: cred.Uid, pid: cred.Pid}
		p.groups, failed = peerGroups(fd)
		p.groups = append(p.groups, cred.Gid)
	})
	if err == nil {
		err = failed
	}
	return p, err
}

// peerGroups reads SO_PEERGROUPS (Linux 4.13), for which x/sys has no wrapper.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 64, 65)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size / 4)
		switch {
		case errno == 0:
			return groups[:n], nil
		case errno != unix.ERANGE || n <= len(groups) || n > maxGroups:
			return nil, fmt.Errorf("read the groups of a peer: %w", errno)
		}
		groups = make([]uint32, n, n+1) // the kernel has said how many there are
	}
}

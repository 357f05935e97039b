package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Errors that callers test for.
var (
	// ErrNoPermission means that the process may not change the ruleset.
	ErrNoPermission = errors.New("changing nftables rules needs CAP_NET_ADMIN: start as root or as the tapgw system service")
	// ErrNotSupported means that the kernel lacks a part of nf_tables; the text around it names the module.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNoMasqueradeV6 means that it is the translation of IPv6: without it, Wanted.NoMasqueradeV6, the other rules work.
	ErrNoMasqueradeV6 = errors.New("the LAN has no IPv6 when the daemon is killed")
	// ErrOwned means that a table of ours belongs to the socket of another process.
	ErrOwned = errors.New("the table belongs to another process: is another tapgw running?")
	// ErrNoDevice means that an uplink's device vanished meanwhile; reading the devices anew and applying again cures it.
	ErrNoDevice = errors.New("the device is gone")
)

const (
	sendBuffer  = 8 << 20 // bytes, room for an interval set of every port
	replyBuffer = 16 << 10
)

// socket is one netlink socket of the netfilter family. The owned tables live as long as it is open.
type socket struct {
	fd  int
	seq uint32
}

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("nftables: %w: load the module nfnetlink", ErrNotSupported)
	}
	if err != nil {
		return nil, fmt.Errorf("nftables: open a netlink socket: %w", os.NewSyscallError("socket", err))
	}
	s := &socket{fd: fd}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("nftables: prepare the netlink socket: %w", err), s.close())
	}
	return s, nil
}

func (s *socket) prepare() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	// Acknowledgements need not repeat what was sent.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	// Refused inside some containers, where the default still holds the usual handful of port ranges.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	return nil
}

func (s *socket) close() error { return os.NewSyscallError("close", unix.Close(s.fd)) }

// commit sends messages as one transaction: all take effect at once, or none does.
func (s *socket) commit(messages []message) error {
	batch := make([]message, 0, len(messages)+2)
	batch = append(batch, batchMarker(unix.NFNL_MSG_BATCH_BEGIN))
	batch = append(batch, messages...)
	batch = append(batch, batchMarker(unix.NFNL_MSG_BATCH_END))
	_, err := s.exchange(batch)
	return err
}

// query sends one request and returns the payload of its answer.
func (s *socket) query(m message) ([]byte, error) { return s.exchange([]message{m}) }

// exchange sends messages in one datagram. The kernel works on them during the send, so all answers are there when it
// returns, and only failures and answers to queries are queued.
func (s *socket) exchange(messages []message) (answer []byte, err error) {
	first := s.seq + 1
	var out []byte
	for _, m := range messages {
		s.seq++
		if out, err = m.append(out, s.seq); err != nil {
			return nil, err
		}
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("nftables: send %d bytes: %w", len(out), os.NewSyscallError("sendto", err))
	}
	replies, err := s.receiveAll()
	for _, r := range replies {
		if r.Header.Type != uint16(netlink.Error) {
			answer = r.Data
		} else if errno := errorOf(r.Data); errno != 0 {
			return nil, failure(messages, int(r.Header.Seq-first), errno)
		}
	}
	return answer, err
}

// receiveAll empties the receive queue. When failures did not fit into it, the first ones come with the error.
func (s *socket) receiveAll() (replies []syscall.NetlinkMessage, lost error) {
	for {
		more, err := s.receive()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return replies, lost
		case errors.Is(err, unix.ENOBUFS):
			lost = fmt.Errorf("nftables: receive: %w", err)
		case err != nil:
			return nil, fmt.Errorf("nftables: receive: %w", err)
		}
		replies = append(replies, more...)
	}
}

func (s *socket) receive() ([]syscall.NetlinkMessage, error) {
	buf := make([]byte, replyBuffer)
	for {
		n, _, err := unix.Recvfrom(s.fd, buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return syscall.ParseNetlinkMessage(buf[:n])
	}
}

func errorOf(data []byte) syscall.Errno {
	if len(data) < 4 {
		return syscall.EBADMSG
	}
	return syscall.Errno(-int32(binary.NativeEndian.Uint32(data)))
}

// failure names what the message at index was about; the kernel blames the first one when the whole batch is refused.
func failure(messages []message, index int, errno syscall.Errno) error {
	if index < 0 || index >= len(messages) {
		return fmt.Errorf("nftables: %w", errno)
	}
	m := messages[index]
	return fmt.Errorf("nftables: %s: %w", m.about, m.explain(errno, index == 0))
}

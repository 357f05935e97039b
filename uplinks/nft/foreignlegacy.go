package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options of a socket that read the tables of legacy iptables and ip6tables (linux/netfilter_ipv4/ip_tables.h).
const (
	iptGetInfo    = 64
	iptGetEntries = 65
)

// iptInfo is struct ipt_getinfo. A hook's rules lie between its entry and its underflow, which is the policy.
type iptInfo struct {
	Name       [32]byte
	ValidHooks uint32 // bits
	HookEntry  [unix.NF_INET_NUMHOOKS]uint32
	Underflow  [unix.NF_INET_NUMHOOKS]uint32
	Entries    uint32
	Size       uint32 // of all entries, in bytes
}

const (
	iptEntriesHeader = 40     // struct ipt_get_entries on 64-bit machines; others refuse it
	iptTargetHeader  = 32     // struct xt_entry_target
	iptAccept        = -1 - 1 // NF_ACCEPT, as a rule states it
)

// legacy is what the two programs differ in.
type legacy struct {
	program string
	names   string // file of the tables there are
	level   int    // of the options
	entry   int    // length of struct ipt_entry or ip6t_entry
}

var (
	iptables  = legacy{"iptables", "/proc/thread-self/net/ip_tables_names", unix.IPPROTO_IP, 112}
	ip6tables = legacy{"ip6tables", "/proc/thread-self/net/ip6_tables_names", unix.IPPROTO_IPV6, 168}
)

// legacyHook is a hook under the name that iptables has for it.
type legacyHook struct {
	hook int
	name string
}

// Those that forwarded packets pass, and those that the host's own do.
var (
	forwardHooks = []legacyHook{{unix.NF_INET_PRE_ROUTING, "PREROUTING"}, {unix.NF_INET_FORWARD, "FORWARD"}, {unix.NF_INET_POST_ROUTING, "POSTROUTING"}}
	hostHooks    = []legacyHook{
		{unix.NF_INET_PRE_ROUTING, "PREROUTING"}, {unix.NF_INET_LOCAL_IN, "INPUT"},
		{unix.NF_INET_LOCAL_OUT, "OUTPUT"}, {unix.NF_INET_POST_ROUTING, "POSTROUTING"},
	}
)

// legacyChains lists the chains of the family's program at these hooks that may act on packets. Every rule counts.
func legacyChains(of family, hooks []legacyHook) (list []string, err error) {
	l := of.legacy
	names, err := os.ReadFile(l.names)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) { // root's, or CAP_DAC_READ_SEARCH
		return []string{line("%s: only root can read which tables there are", l.program)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forwarding: read which %s tables there are: %w", l.program, err)
	}
	for _, table := range strings.Fields(string(names)) { // to ask for another one would make it
		chains, err := l.read(of.domain, table, hooks)
		if err != nil {
			return nil, fmt.Errorf("forwarding: read the %s table %s: %w", l.program, table, err)
		}
		list = append(list, chains...)
	}
	return list, nil
}

func (l legacy) read(domain int, table string, hooks []legacyHook) (list []string, err error) {
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	info, err := l.info(fd, table)
	if err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if info.ValidHooks&(1<<h.hook) != 0 && info.HookEntry[h.hook] != info.Underflow[h.hook] {
			list = append(list, line("%s: chain %s of table %s has rules", l.program, h.name, table))
		}
	}
	if len(list) > 0 { // the policies would cost reading every rule and tell nothing new
		return list, nil
	}
	return l.policies(fd, table, info, hooks)
}

func (l legacy) info(fd int, table string) (info iptInfo, err error) {
	data := make([]byte, binary.Size(info))
	copy(data[:len(info.Name)-1], table)
	if err := getOption(fd, l.level, iptGetInfo, data); err != nil {
		return info, err
	}
	_, err = binary.Decode(data, binary.NativeEndian, &info)
	return info, err
}

func (l legacy) policies(fd int, table string, info iptInfo, hooks []legacyHook) (list []string, err error) {
	const sizeOffset = len(info.Name)
	data := make([]byte, iptEntriesHeader+int(info.Size))
	copy(data[:sizeOffset-1], table)
	binary.NativeEndian.PutUint32(data[sizeOffset:], info.Size)
	if err := getOption(fd, l.level, iptGetEntries, data); err != nil {
		return nil, err
	}
	for _, h := range hooks {
		if info.ValidHooks&(1<<h.hook) == 0 {
			continue
		}
		at := iptEntriesHeader + int(info.Underflow[h.hook]) + l.entry + iptTargetHeader
		if at+4 > len(data) {
			return nil, fmt.Errorf("chain %s ends behind the table", h.name)
		}
		if int32(binary.NativeEndian.Uint32(data[at:])) != iptAccept {
			list = append(list, line("%s: chain %s of table %s drops by default", l.program, h.name, table))
		}
	}
	return list, nil
}

// getOption reads an option whose question and answer share one buffer.
func getOption(fd, level, option int, data []byte) error {
	size := uint32(len(data))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&data[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

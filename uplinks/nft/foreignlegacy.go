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

// Options of an IPv4 socket that read the tables of legacy iptables (linux/netfilter_ipv4/ip_tables.h).
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
	iptEntriesHeader = 40       // struct ipt_get_entries on 64-bit machines; others refuse it
	iptVerdict       = 112 + 32 // of a policy, in its entry: behind struct ipt_entry and xt_entry_target
	iptAccept        = -1 - 1   // NF_ACCEPT, as a rule states it
)

// forwardHooks are those that forwarded packets pass, under the names iptables has for them.
var forwardHooks = []struct {
	hook int
	name string
}{{unix.NF_INET_PRE_ROUTING, "PREROUTING"}, {unix.NF_INET_FORWARD, "FORWARD"}, {unix.NF_INET_POST_ROUTING, "POSTROUTING"}}

// legacyBypassed lists the chains of legacy iptables that may act on forwarded packets. Every rule counts.
func legacyBypassed() (list []string, err error) {
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("forwarding: read which iptables tables there are: %w", err)
	}
	for _, table := range strings.Fields(string(names)) { // to ask for another one would make it
		chains, err := readLegacy(table)
		if err != nil {
			return nil, fmt.Errorf("forwarding: read the iptables table %s: %w", table, err)
		}
		list = append(list, chains...)
	}
	return list, nil
}

func readLegacy(table string) (list []string, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	info, err := readLegacyInfo(fd, table)
	if err != nil {
		return nil, err
	}
	for _, h := range forwardHooks {
		if info.ValidHooks&(1<<h.hook) != 0 && info.HookEntry[h.hook] != info.Underflow[h.hook] {
			list = append(list, line("iptables: chain %s of table %s has rules", h.name, table))
		}
	}
	if len(list) > 0 { // the policies would cost reading every rule and tell nothing new
		return list, nil
	}
	return readLegacyPolicies(fd, table, info)
}

func readLegacyInfo(fd int, table string) (info iptInfo, err error) {
	data := make([]byte, binary.Size(info))
	copy(data[:len(info.Name)-1], table)
	if err := getOption(fd, iptGetInfo, data); err != nil {
		return info, err
	}
	_, err = binary.Decode(data, binary.NativeEndian, &info)
	return info, err
}

func readLegacyPolicies(fd int, table string, info iptInfo) (list []string, err error) {
	const sizeOffset = len(info.Name)
	data := make([]byte, iptEntriesHeader+int(info.Size))
	copy(data[:sizeOffset-1], table)
	binary.NativeEndian.PutUint32(data[sizeOffset:], info.Size)
	if err := getOption(fd, iptGetEntries, data); err != nil {
		return nil, err
	}
	for _, h := range forwardHooks {
		if info.ValidHooks&(1<<h.hook) == 0 {
			continue
		}
		at := iptEntriesHeader + int(info.Underflow[h.hook]) + iptVerdict
		if at+4 > len(data) {
			return nil, fmt.Errorf("chain %s ends behind the table", h.name)
		}
		if int32(binary.NativeEndian.Uint32(data[at:])) != iptAccept {
			list = append(list, line("iptables: chain %s of table %s drops by default", h.name, table))
		}
	}
	return list, nil
}

// getOption reads an option whose question and answer share one buffer.
func getOption(fd, option int, data []byte) error {
	size := uint32(len(data))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option),
		uintptr(unsafe.Pointer(&data[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bits and numbers of struct ipt_replace for the table filter.
const (
	iptSetReplace  = 64
	filterHooks    = 1<<unix.NF_INET_LOCAL_IN | 1<<unix.NF_INET_FORWARD | 1<<unix.NF_INET_LOCAL_OUT
	iptDrop        = -1
	iptCounterSize = 16
)

// TestBypassedLegacy: of each family by the rules of its own program.
func TestBypassedLegacy(t *testing.T) {
	for i, of := range families {
		t.Run(of.legacy.program, func(t *testing.T) {
			h := newForeignHost(t)
			h.do(func() error { // to ask is to make it
				fd, err := unix.Socket(of.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				_, err = of.legacy.info(fd, "filter")
				return err
			})
			h.do(func() error {
				names, err := os.ReadFile(of.legacy.names)
				if string(names) != "filter\n" {
					t.Fatalf("tables: %q, %v", names, err)
				}
				return nil
			})
			h.expectOf(of)
			hooks := []int{unix.NF_INET_LOCAL_IN, unix.NF_INET_FORWARD, unix.NF_INET_LOCAL_OUT}
			for _, hook := range hooks {
				h.setLegacy(of, hook, true, iptAccept)
				if hook == unix.NF_INET_FORWARD {
					h.expectOf(of, of.legacy.program+": chain FORWARD of table filter has rules")
				} else {
					h.expectOf(of)
				}
				h.setLegacy(of, hook, false, iptDrop)
				if hook == unix.NF_INET_FORWARD {
					h.expectOf(of, of.legacy.program+": chain FORWARD of table filter drops by default")
				} else {
					h.expectOf(of)
				}
				h.expectOf(families[1-i])
				h.expectLegacyMet(of, hook)
			}
		})
	}
}

// setLegacy replaces the table filter by one with a policy for a hook, and with a rule there that accepts everything.
func (h *foreignHost) setLegacy(of family, at int, rule bool, policy int32) {
	h.t.Helper()
	var entries bytes.Buffer
	var starts, ends [unix.NF_INET_NUMHOOKS]uint32
	count := uint32(1)
	for _, hook := range []int{unix.NF_INET_LOCAL_IN, unix.NF_INET_FORWARD, unix.NF_INET_LOCAL_OUT} {
		starts[hook] = uint32(entries.Len())
		verdict := int32(iptAccept)
		if hook == at {
			verdict = policy
			if rule {
				entries.Write(of.legacy.testEntry("", binary.NativeEndian.AppendUint32(nil, uint32(0xfffffffe)), 8))
				count++
			}
		}
		ends[hook] = uint32(entries.Len())
		entries.Write(of.legacy.testEntry("", binary.NativeEndian.AppendUint32(nil, uint32(verdict)), 8))
		count++
	}
	entries.Write(of.legacy.testEntry("ERROR", []byte("ERROR"), 32))
	h.do(func() error { return replaceLegacy(of, starts, ends, count, entries.Bytes()) })
}

// testEntry is struct ipt_entry or ip6t_entry, which matches everything, and a target with its data. Its offsets stand before
// two numbers and two counters.
func (l legacy) testEntry(target string, data []byte, size int) []byte {
	e := make([]byte, l.entry+iptTargetHeader+size)
	offsets := l.entry - 24
	if l.level == unix.IPPROTO_IPV6 {
		offsets -= 4 // the counters are aligned
	}
	binary.NativeEndian.PutUint16(e[offsets:], uint16(l.entry))
	binary.NativeEndian.PutUint16(e[offsets+2:], uint16(len(e)))
	binary.NativeEndian.PutUint16(e[l.entry:], uint16(iptTargetHeader+size))
	copy(e[l.entry+2:], target)
	copy(e[l.entry+iptTargetHeader:], data)
	return e
}

func replaceLegacy(of family, starts, ends [unix.NF_INET_NUMHOOKS]uint32, count uint32, entries []byte) error {
	fd, err := unix.Socket(of.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := of.legacy.info(fd, "filter")
	if err != nil {
		return err
	}
	counters := make([]byte, int(old.Entries)*iptCounterSize)
	b := append([]byte("filter"), make([]byte, 26)...)
	for _, n := range [][]uint32{{filterHooks, count, uint32(len(entries))}, starts[:], ends[:], {old.Entries}} {
		for _, v := range n {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
	}
	b = binary.NativeEndian.AppendUint64(b, uint64(uintptr(unsafe.Pointer(&counters[0]))))
	return unix.SetsockoptString(fd, of.legacy.level, iptSetReplace, string(append(b, entries...)))
}

// expectLegacyMet compares what the host's own packets meet where the chain of a hook drops by default.
func (h *foreignHost) expectLegacyMet(of family, hook int) {
	h.t.Helper()
	var got, want []string
	if name := map[int]string{unix.NF_INET_LOCAL_IN: "INPUT", unix.NF_INET_LOCAL_OUT: "OUTPUT"}[hook]; name != "" {
		want = []string{fmt.Sprintf("%s: chain %s of table filter drops by default", of.legacy.program, name)}
	}
	h.do(func() (err error) { got, _, err = h.foreign.metByHost(of, h.tap, nil); return err })
	if !slices.Equal(got, want) {
		h.t.Errorf("%s: the host's own packets meet %q, want %q", of.legacy.program, got, want)
	}
}

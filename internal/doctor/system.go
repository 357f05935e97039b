package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"tapgw/api"
)

// tun looks whether TAP devices can be made.
func tun(*host) Finding {
	const path = "/dev/net/tun"
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		_ = f.Close()
		return ok("%s can be opened", path)
	case errors.Is(err, fs.ErrPermission):
		return unknown(useRoot, "this user may not open %s", path)
	}
	return fail("sudo modprobe tun; in a container give it the device "+path, "%v", err)
}

// The capabilities that the daemon needs, and those without which the datapath is not the kernel's.
var (
	needed = map[string]int{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW}
	faster = map[string]int{"CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON}
)

// privileges looks at those of the calling thread.
func privileges(*host) Finding {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return unknown("", "cannot read the capabilities: %v", err)
	}
	has := func(c int) bool { return sets[c/32].Effective&(1<<(c%32)) != 0 }
	lacking := func(wanted map[string]int) (list []string) {
		for name, c := range wanted {
			if !has(c) && !has(unix.CAP_SYS_ADMIN) {
				list = append(list, name)
			}
		}
		return sorted(list)
	}
	switch missing, slow := lacking(needed), lacking(faster); {
	case len(missing) > 0 && os.Geteuid() != 0:
		return unknown(useRoot, "without root some things cannot be looked at")
	case len(missing) > 0:
		return fail("give the container or service these capabilities", "%s missing", words(missing))
	case len(slow) > 0:
		return warn("give the container or service these capabilities, for the kernel's datapath", "%s missing", words(slow))
	}
	return ok("all capabilities that tapgw needs")
}

// datapath says who carries, or could carry, the packets of known sessions.
func datapath(h *host) Finding {
	if h.running() {
		if h.status.Datapath == api.DatapathKernel {
			return ok("the kernel carries the packets of known sessions")
		}
		return warn("all works, slower; see \"Who carries the packets\" in the README", "%s: %s", h.status.Datapath, h.status.DatapathReason)
	}
	switch err := features.HaveProgramType(ebpf.SchedCLS); {
	case err == nil:
		return ok("the kernel can carry the packets of known sessions")
	case errors.Is(err, ebpf.ErrNotSupported):
		return warn("all works, slower; a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF is faster", "the kernel has no BPF for packets")
	default:
		return unknown(useRoot, "not allowed to ask the kernel for BPF")
	}
}

// Shares of the table of connections from which it is called nearly full, and full.
const (
	nearlyFull = 0.9
	full       = 0.999
)

// conntrack looks whether the kernel's table of connections has room: without it new connections of the host's firewall are lost.
func conntrack(*host) Finding {
	used, err := number("/proc/sys/net/netfilter/nf_conntrack_count")
	if errors.Is(err, fs.ErrNotExist) {
		return ok("the kernel tracks no connections")
	}
	room, errRoom := number("/proc/sys/net/netfilter/nf_conntrack_max")
	if err = errors.Join(err, errRoom); err != nil || room == 0 {
		return unknown("", "cannot read how full the table of connections is: %v", err)
	}
	advice := fmt.Sprintf("sudo sysctl -w net.netfilter.nf_conntrack_max=%d", 4*room)
	text := fmt.Sprintf("%d of %d connections tracked by the firewall", used, room)
	switch share := float64(used) / float64(room); {
	case share >= full:
		return fail(advice, "%s: new ones are lost", text)
	case share >= nearlyFull:
		return warn(advice, "%s", text)
	}
	return ok("%s", text)
}

// number reads a file of one number.
func number(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// oldest is before every release of tapgw.
var oldest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clock looks at the time, by which certificates are judged and data caps begin anew.
func clock(*host) Finding {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return unknown("", "cannot ask the kernel whether the clock is right: %v", err)
	}
	return judgeClock(time.Now(), t.Status&unix.STA_UNSYNC == 0)
}

func judgeClock(now time.Time, synchronised bool) Finding {
	const advice = "sudo timedatectl set-ntp true"
	switch {
	case now.Before(oldest):
		return fail(advice, "the clock says %s: certificates are refused", now.UTC().Format(time.DateOnly))
	case !synchronised:
		return warn(advice, "nobody keeps the clock right")
	}
	return ok("the clock is synchronised")
}

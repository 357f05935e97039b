package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapgw/uplinks"
)

// sysctl reads a setting of a device, "" where there is none.
func sysctl(family, device, name string) string {
	text, _ := os.ReadFile(filepath.Join("/proc/sys/net", family, "conf", device, name))
	return strings.TrimSpace(string(text))
}

// reversePath looks for strict reverse path filters, which drop what comes in by another way than the best (RFC 3704 §2.2). Of the
// values for all and for a device the larger one counts.
func reversePath(h *host) Finding {
	strict := func(device string) bool {
		return max(sysctl("ipv4", "all", "rp_filter"), sysctl("ipv4", device, "rp_filter")) == "1"
	}
	devices := h.uplinksThat(func(u *uplinks.Uplink) bool { return strict(u.Interface) })
	if h.tap.Index != 0 && strict(h.TAP) {
		devices = append(devices, h.TAP)
	}
	switch {
	case len(devices) == 0:
		return ok("loose or off")
	case h.running():
		return fail("sudo sysctl -w net.ipv4.conf."+devices[0]+".rp_filter=2, and the same of the others", "strict on %s: answers are lost", words(devices))
	}
	return ok("strict on %s, which tapgw loosens while it runs", words(devices))
}

// forwarding looks whether packets of the LAN get to the TAP.
func forwarding(h *host) Finding {
	switch {
	case len(h.lan) == 0:
		return ok("not needed: no LAN behind this host")
	case !h.running():
		return ok("for %s tapgw switches it on while it runs", words(h.lan))
	}
	off := slices.DeleteFunc(append(slices.Clone(h.lan), h.TAP), func(device string) bool { return sysctl("ipv4", device, "forwarding") == "1" })
	if len(off) > 0 {
		return fail("sudo sysctl -w net.ipv4.conf."+off[0]+".forwarding=1, and the same of the others", "off on %s: the LAN is offline", words(off))
	}
	return ok("on for %s", words(h.lan))
}

// acceptRA looks for uplinks that hear no router advertisements, as they are routers themselves.
func acceptRA(h *host) Finding {
	deaf := h.uplinksThat(func(u *uplinks.Uplink) bool {
		return sysctl("ipv6", u.Interface, "forwarding") == "1" && sysctl("ipv6", u.Interface, "accept_ra") == "1"
	})
	switch {
	case len(deaf) == 0:
		return ok("uplinks hear their routers' advertisements")
	case h.running():
		return warn("sudo sysctl -w net.ipv6.conf."+deaf[0]+".accept_ra=2, and the same of the others", "%s forward IPv6 and hear no router: IPv6 ends there", words(deaf))
	}
	return ok("%s forward IPv6 and hear no router, which tapgw changes while it runs", words(deaf))
}

// Sizes of packets that tell a network that is not as usual: the least for IPv6 (RFC 8200 §5), and Ethernet's.
const (
	leastMTU = 1280
	usualMTU = 1500
)

func mtu(h *host) Finding {
	sizes := func(fit func(size int) bool) (list []string) {
		for _, u := range h.list {
			if fit(u.MTU) {
				list = append(list, fmt.Sprintf("%s (%d)", u.Interface, u.MTU))
			}
		}
		return list
	}
	small := sizes(func(size int) bool { return size < leastMTU })
	large := sizes(func(size int) bool { return size > usualMTU })
	switch {
	case len(small) > 0:
		return warn("sudo ip link set DEVICE mtu 1500, or what the provider says", "%s: too small for IPv6", words(small))
	case len(large) > 0:
		return warn("sudo ip link set DEVICE mtu 1500, unless the provider takes more", "%s: most providers lose such packets", words(large))
	}
	return ok("from %d to %d bytes on all uplinks", leastMTU, usualMTU)
}

// offloads looks for uplinks that hand over every small packet for itself.
func offloads(h *host) Finding {
	off := h.uplinksThat(func(u *uplinks.Uplink) bool { on, err := receiveOffload(u.Interface); return err == nil && !on })
	if len(off) > 0 {
		return warn("sudo ethtool -K "+off[0]+" gro on", "generic receive offload is off on %s: slower", words(off))
	}
	return ok("generic receive offload is on")
}

// receiveOffload asks ethtool whether packets are joined when they come in.
func receiveOffload(device string) (on bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	value := [2]uint32{unix.ETHTOOL_GGRO, 0}
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return false, errno
	}
	return value[1] != 0, nil
}

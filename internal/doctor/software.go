package doctor

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tapgw/uplinks"
)

// maxFile bounds what is read of a file of another program.
const maxFile = 64 << 10

// file reads a file that another program installs, nil where there is none.
func (h *host) file(path ...string) []byte {
	f, err := os.Open(filepath.Join(append([]string{h.Root}, path...)...))
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, maxFile))
	return text
}

func (h *host) exists(pattern string) bool {
	found, _ := filepath.Glob(filepath.Join(h.Root, pattern))
	return len(found) > 0
}

// setting is the last value of a key in a file of "key=value" lines.
func setting(text []byte, key string) (value string) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), "="); ok && strings.TrimSpace(k) == key {
			value = strings.TrimSpace(v)
		}
	}
	return value
}

// networkManager looks whether it takes the TAP for one of its devices, which it then may switch off.
func networkManager(h *host) Finding {
	switch {
	case !h.exists("run/NetworkManager"):
		return ok("NetworkManager does not run")
	case h.tap.Index != 0 && setting(h.file("run/NetworkManager/devices", strconv.Itoa(h.tap.Index)), "managed") == "true":
		return warn("put [device-tapgw] match-device=interface-name:"+h.TAP+"* managed=0 into a file in /etc/NetworkManager/conf.d",
			"NetworkManager manages %s", h.TAP)
	}
	return ok("NetworkManager leaves %s alone", h.TAP)
}

// What NetworkManager adds to the metric of a device that its connectivity check fails on.
const offlinePenalty = 20000

func connectivity(h *host) Finding {
	var offline []string
	for _, r := range slices.Concat(h.Facts.Routes, h.Facts.V6.Routes) {
		if r.Dst.IsValid() && r.Dst.Bits() == 0 && r.Metric >= offlinePenalty && r.Metric < 2*offlinePenalty && r.Protocol != uplinks.Protocol {
			offline = append(offline, fmt.Sprintf("%s (metric %d)", h.device(r.Index), r.Metric))
		}
	}
	if len(offline) > 0 && h.exists("run/NetworkManager") {
		return warn("check that network; tapgw's own probes decide whether it is used", "NetworkManager finds no Internet by %s", words(sorted(offline)))
	}
	return ok("no other manager calls an uplink offline")
}

// networkd looks whether it deletes rules and routes that it has not made, as it does by default.
func networkd(h *host) Finding {
	if !h.exists("run/systemd/netif/state") {
		return ok("systemd-networkd does not run")
	}
	keeps := func(key string) bool {
		return slices.Contains([]string{"no", "false", "0", "off"}, strings.ToLower(h.networkdSetting(key)))
	}
	if keeps("ManageForeignRoutes") && keeps("ManageForeignRoutingPolicyRules") {
		return ok("systemd-networkd leaves routes and rules of others alone")
	}
	return warn("put [Network] ManageForeignRoutes=no ManageForeignRoutingPolicyRules=no into a file in /etc/systemd/networkd.conf.d",
		"systemd-networkd deletes routes and rules of others when it restarts; tapgw puts its own back")
}

// networkdSetting is a setting as systemd reads it: of all drop-ins, ordered by name, the last that has it.
func (h *host) networkdSetting(key string) string {
	value := setting(h.file("etc/systemd/networkd.conf"), key)
	files := map[string]string{}
	var order []string
	for _, dir := range []string{"usr/lib", "run", "etc"} {
		found, _ := filepath.Glob(filepath.Join(h.Root, dir, "systemd/networkd.conf.d/*.conf"))
		for _, path := range found {
			name := filepath.Base(path)
			files[name] = filepath.Join(dir, "systemd/networkd.conf.d", name)
			order = append(order, name)
		}
	}
	for _, name := range sorted(order) {
		if v := setting(h.file(files[name]), key); v != "" {
			value = v
		}
	}
	return value
}

// mwan3 does the same job by rules of its own.
func mwan3(h *host) Finding {
	if h.exists("usr/sbin/mwan3") {
		return fail("remove mwan3, or stop it: two balancers undo each other's work", "mwan3 is installed")
	}
	return ok("no other balancer is installed")
}

// desktop looks whether it shows tray icons.
func desktop(h *host) Finding {
	switch {
	case !strings.Contains(h.Desktop, "GNOME"):
		return ok("nothing known that hides tray icons")
	case h.exists("usr/share/gnome-shell/extensions/*appindicator*"), h.exists("home/*/.local/share/gnome-shell/extensions/*appindicator*"):
		return ok("GNOME has the extension for tray icons")
	}
	return warn("install gnome-shell-extension-appindicator, and log in again", "GNOME shows no tray icons, so none of tapgw-tray")
}

package configs

import (
	"slices"
	"strconv"
)

// Helpers are the application helpers.
type Helpers struct{ FTP, TFTP, IRC, PPTP, RTSP, SIP Helper }

// Helper is one of them.
type Helper struct {
	Enabled bool
	Ports   []uint16 // of remotes, where the sessions go that it reads
}

// helperKeys are the keys below helpers, with their defaults: RFC 4787 REQ-10 and RFC 5382 REQ-6 want all but FTP off.
var helperKeys = []struct {
	name      string
	at        func(*Helpers) *Helper
	protocols []string // whose ports they are
	initial   Helper
}{
	{"ftp", func(h *Helpers) *Helper { return &h.FTP }, []string{"tcp"}, Helper{true, []uint16{21}}},
	{"tftp", func(h *Helpers) *Helper { return &h.TFTP }, []string{"udp"}, Helper{false, []uint16{69}}},
	{"irc", func(h *Helpers) *Helper { return &h.IRC }, []string{"tcp"}, Helper{false, []uint16{6667}}},
	{"pptp", func(h *Helpers) *Helper { return &h.PPTP }, []string{"tcp"}, Helper{false, []uint16{1723}}},
	{"rtsp", func(h *Helpers) *Helper { return &h.RTSP }, []string{"tcp"}, Helper{false, []uint16{554}}},
	{"sip", func(h *Helpers) *Helper { return &h.SIP }, []string{"tcp", "udp"}, Helper{false, []uint16{5060}}},
}

func defaultHelpers() (h Helpers) {
	for _, k := range helperKeys {
		*k.at(&h) = k.initial
	}
	return h
}

// helperFields are the fields of all helpers.
var helperFields = func() (fields []field[Config]) {
	for _, k := range helperKeys {
		key := "helpers." + k.name
		fields = append(fields,
			scalar(key+".enabled", func(c *Config) *bool { return &k.at(&c.Helpers).Enabled }, parseBool, strconv.FormatBool),
			list(key+".ports", "", func(c *Config) *[]uint16 { return &k.at(&c.Helpers).Ports }, parsePort, formatPort))
	}
	return fields
}()

func parsePort(s string) (uint16, error) {
	n, err := within(1, 65535)(s)
	return uint16(n), err
}

func formatPort(p uint16) string { return strconv.Itoa(int(p)) }

// maxHelperPorts bounds the ports of one helper.
const maxHelperPorts = 16

// checkHelpers refuses ports that two helpers would read at once.
func (l *loader) checkHelpers() {
	owners := map[string]string{} // names of helpers, by protocol and port
	for _, k := range helperKeys {
		h, key := k.at(&l.config.Helpers), "helpers."+k.name+".ports"
		if !l.sound(key) {
			continue
		}
		if len(h.Ports) > maxHelperPorts {
			l.refuse(key, "use at most "+strconv.Itoa(maxHelperPorts), "%d ports are too many", len(h.Ports))
			continue
		}
		for i, port := range h.Ports {
			if slices.Contains(h.Ports[:i], port) {
				l.refuse(index(key, i), "keep one", "%d is listed twice", port)
			} else if h.Enabled {
				l.claimPort(owners, k.name, k.protocols, port, index(key, i))
			}
		}
	}
}

// claimPort notes that a port of some protocols belongs to a helper, once.
func (l *loader) claimPort(owners map[string]string, name string, protocols []string, port uint16, path string) {
	for _, protocol := range protocols {
		service := protocol + "/" + formatPort(port)
		if other, taken := owners[service]; taken {
			l.refuse(path, "give each helper ports of its own", "%s is one of helpers.%s already", service, other)
			return
		}
		owners[service] = name
	}
}

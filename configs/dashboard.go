package configs

import (
	"net/netip"
	"strings"
)

const (
	dashboardListen = "dashboard.listen"
	dashboardToken  = "dashboard.token_file"
)

var dashboardFields = []field[Config]{
	restart(optional(dashboardListen, func(c *Config) *netip.AddrPort { return &c.Dashboard.Listen }, parseDashboard, formatAddrPort)),
	restart(optional(dashboardToken, func(c *Config) *string { return &c.Dashboard.TokenFile }, parseTokenFile, formatText)),
}

func parseDashboard(s string) (netip.AddrPort, error) { return parseAddrPort(s, "127.0.0.1:7380") }

func parseTokenFile(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") {
		return "", faultf("write for example /etc/tapgw/dashboard.token", "%s is not an absolute path of a file", quote(s))
	}
	return s, nil
}

// checkDashboard keeps what everybody on this host may read from everybody else.
func (l *loader) checkDashboard() {
	d := l.config.Dashboard
	if l.sound(dashboardListen, dashboardToken) && d.Listen.IsValid() && !d.Listen.Addr().Unmap().IsLoopback() && d.TokenFile == "" {
		l.refuse(dashboardListen, "add dashboard.token_file, or use a loopback address as 127.0.0.1:7380", "%s can be reached by others, who could read everything", d.Listen.Addr())
	}
}

package daemon

import (
	"bytes"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"tapgw/internal/apiserver"
	"tapgw/internal/hostconf"
	"tapgw/web"
)

// minToken keeps a token from being guessed.
const minToken = 16

// dashboard is what the configuration says of the page for a browser. Without the token that it asks for there is none.
func (d *Daemon) dashboard() apiserver.Dashboard {
	c := d.cfg().Dashboard
	if !c.Listen.IsValid() {
		return apiserver.Dashboard{}
	}
	token, err := readToken(c.TokenFile)
	if err != nil {
		d.log.Warn("no dashboard: mend dashboard.token_file and restart", "error", err)
		return apiserver.Dashboard{}
	}
	return apiserver.Dashboard{Address: c.Listen, Token: token, Page: web.Static(), UserOf: d.userOf}
}

// userOf is whose TCP socket of this host has these ends.
func (d *Daemon) userOf(local, remote netip.AddrPort) (uid uint32, ok bool) {
	if d.owners == nil {
		return 0, false
	}
	return d.owners.User(unix.IPPROTO_TCP, local, remote)
}

// readToken reads a file that nobody else may read or write.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := hostconf.ReadSecret(path)
	if err != nil {
		return "", err
	}
	token := bytes.TrimSpace(data)
	if len(token) < minToken {
		return "", fmt.Errorf("%s has fewer than %d characters; write for example what `openssl rand -hex 16` prints", path, minToken)
	}
	return string(token), nil
}

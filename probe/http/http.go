// Package http probes an uplink by fetching a page (RFC 9110) whose content is known: what else comes is from a portal.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tapgw/probe"
	"tapgw/probe/bound"
	"tapgw/probe/dns"
)

const (
	maxHeader = 16 << 10 // bytes
	maxBody   = 64 << 10 // of a page that is looked at
	maxURL    = 500      // of a portal's address
)

// Prober fetches a page over a connection of its own. The zero value is ready.
type Prober struct{}

// Probe returns how long it took. A page that is not the one expected is a *probe.WrongError.
func (Prober) Probe(ctx context.Context, link probe.Link, target probe.Target) (time.Duration, error) {
	if err := bound.Check(link); err != nil {
		return 0, err
	}
	began := time.Now()
	conn, err := dial(ctx, link, target)
	if err != nil {
		return 0, cause(err)
	}
	defer conn.Close()
	transport := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	page := address(target)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return 0, fmt.Errorf("ask for %s: %w", page, err)
	}
	request.Header.Set("User-Agent", "tapgw")
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, cause(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return 0, cause(err)
	}
	return time.Since(began), judge(page, target.Expect, answer{response.StatusCode, response.Header.Get("Location"), string(body)})
}

func dial(ctx context.Context, link probe.Link, target probe.Target) (net.Conn, error) {
	addr := target.Addr
	if !addr.IsValid() {
		var err error
		if addr, err = dns.Resolve(ctx, link, target.Name); err != nil {
			return nil, err
		}
	}
	return bound.Dial(ctx, link, "tcp", netip.AddrPortFrom(addr, target.Port).String())
}

// address is the URL of a target.
func address(t probe.Target) *url.URL {
	host := t.Name
	if t.Addr.Is6() {
		host = "[" + t.Addr.String() + "]"
	} else if t.Addr.IsValid() {
		host = t.Addr.String()
	}
	if t.Port != 80 {
		host += ":" + strconv.Itoa(int(t.Port))
	}
	path, query, _ := strings.Cut(t.Path, "?")
	return &url.URL{Scheme: "http", Host: host, Path: path, RawQuery: query}
}

// answer is what came for a page; all of it may be forged.
type answer struct {
	status   int
	location string
	body     string
}

// judge compares an answer with what was expected. A server that fails, refuses or sends to another page of its own is no portal.
func judge(page *url.URL, expect string, a answer) error {
	if status, err := strconv.Atoi(expect); err == nil && a.status == status || err != nil && a.status == http.StatusOK && strings.Contains(a.body, expect) {
		return nil
	}
	switch {
	case a.status >= 300 && a.status < 400:
		to, err := page.Parse(a.location)
		if err != nil || a.location == "" || !leadsSomewhere(to) {
			return errors.New("a redirection to nowhere")
		}
		if strings.EqualFold(to.Hostname(), page.Hostname()) {
			return fmt.Errorf("redirected to %s", clean(to))
		}
		return &probe.WrongError{What: "redirected to " + clean(to), Portal: clean(to)}
	case a.status >= 200 && a.status < 300, a.status == http.StatusNetworkAuthenticationRequired:
		return &probe.WrongError{What: "another page came instead", Portal: clean(page)}
	}
	return fmt.Errorf("HTTP status %d", a.status)
}

// leadsSomewhere reports whether a browser can go to a URL as it is shown. Some are read that cannot be read again.
func leadsSomewhere(u *url.URL) bool {
	shown, err := url.Parse(clean(u))
	return err == nil && (shown.Scheme == "http" || shown.Scheme == "https") && shown.Hostname() != ""
}

// clean is a URL as it can be shown: without secrets in it, control characters or great length.
func clean(u *url.URL) string {
	shown := *u
	shown.User, shown.Fragment, shown.RawFragment = nil, "", ""
	shown.RawQuery = escape(shown.RawQuery)
	s := shown.String() // escapes what is not printable anywhere else
	if len(s) > maxURL {
		shown.RawQuery, shown.Path, shown.RawPath = "", "/", ""
		s = shown.String()
	}
	return s[:min(len(s), maxURL)]
}

// escape escapes what is not printable in a query.
func escape(query string) string {
	var b strings.Builder
	for _, c := range []byte(query) {
		if c > ' ' && c <= '~' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// cause drops what net puts around an errno, and what the transport puts around the errors of resolving.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

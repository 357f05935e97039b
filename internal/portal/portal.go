// Package portal is an HTTP proxy (RFC 9110 §3.7) by which a browser reaches the page where somebody must sign in, by the uplink
// that leads there.
package portal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// What one proxy takes on at most.
const (
	maxConns    = 64 // of browsers; more wait, and each has one to the far side at most
	maxHeader   = 32 << 10
	dialTimeout = 15 * time.Second // with the name's address
	firstByte   = 30 * time.Second // of a request or of the answer to it
	maxExchange = 5 * time.Minute  // a request with its answer
	silence     = 2 * time.Minute  // in both directions of a tunnel
)

// Gate is where a browser reaches the page to sign in of an uplink: `tapgw portal --json`.
type Gate struct {
	Uplink string `json:"uplink"` // name
	URL    string `json:"url"`    // the page, as its network says
	Proxy  string `json:"proxy"`  // address and port of an HTTP proxy that leads there
}

// Way is how the far side is reached, and nothing else is.
type Way interface {
	// Resolve returns an address of a name.
	Resolve(ctx context.Context, name string) (netip.Addr, error)
	// Dial opens a TCP connection.
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Own returns the addresses of this host, at which there are services that the far side must not reach by a browser.
	Own() ([]netip.Addr, error)
}

// errRefused is wrapped where a target is not of the far side.
var errRefused = errors.New("this proxy leads to hosts behind the uplink only")

// proxy serves requests by a Way.
type proxy struct{ way Way }

// Serve is the proxy on l, which it closes, until ctx ends (then it returns nil) or l fails.
func Serve(ctx context.Context, l net.Listener, way Way) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &proxy{way}
	plain, quiet := p.plain(), log.New(io.Discard, "", 0)
	plain.ErrorLog = quiet
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodConnect {
				p.tunnel(ctx, w, r)
				return
			}
			p.exchange(plain, w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: firstByte, ReadTimeout: maxExchange, WriteTimeout: maxExchange, IdleTimeout: firstByte,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       quiet,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	err := server.Serve(limit(l, maxConns))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// exchange passes on a request in absolute form (RFC 9112 §3.2.2).
func (p *proxy) exchange(plain http.Handler, w http.ResponseWriter, r *http.Request) {
	if r.URL.Scheme != "http" || r.URL.Host == "" {
		http.Error(w, "this is an HTTP proxy, set it as that in a browser", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxExchange)
	defer cancel()
	plain.ServeHTTP(w, r.WithContext(ctx))
}

func (p *proxy) plain() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came: portals have strange ones
			r.Out.Header.Del("Connection")
			r.Out.Header.Del("Upgrade") // what follows would have no bounds
		},
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, address string) (net.Conn, error) { return p.dial(ctx, address) },
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
			ResponseHeaderTimeout:  firstByte,
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { fail(w, err) },
	}
}

func fail(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway
	if errors.Is(err, errRefused) {
		status = http.StatusForbidden
	}
	http.Error(w, err.Error(), status)
}

// dial connects to a host, which is a name or an address, and port.
func (p *proxy) dial(ctx context.Context, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%q is no port", text)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addr, err = p.way.Resolve(ctx, host)
	}
	if err = cmp.Or(err, p.check(addr.Unmap())); err != nil {
		return nil, err
	}
	return p.way.Dial(ctx, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
}

// check refuses what a page of the far side could otherwise reach on this host or link by the browser of who signs in.
func (p *proxy) check(a netip.Addr) error {
	own, err := p.way.Own()
	if err != nil {
		return err
	}
	if !a.IsGlobalUnicast() || a.Zone() != "" || slices.Contains(own, a) {
		return fmt.Errorf("%s: %w", a, errRefused)
	}
	return nil
}

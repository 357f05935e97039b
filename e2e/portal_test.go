package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

const (
	// loginHost is a name that the provider's resolver alone knows.
	loginHost = "login.hotel.test"
	loginPort = 8080
	deleteNAT = "delete table ip hotel\n"
)

// captive puts a portal in the way of an uplink: web pages become its own until somebody signs in there.
func captive(t testing.TB, u *lab.Uplink) {
	t.Helper()
	page := fmt.Sprintf("http://%s:%d/login", loginHost, loginPort)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, page, http.StatusFound) })
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "sign in,", r.RemoteAddr) })
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		c := u.ISP.Command(r.Context(), "/usr/sbin/nft", "-f", "-")
		c.Stdin = strings.NewReader(deleteNAT)
		if out, err := c.CombinedOutput(); err != nil {
			http.Error(w, string(out), http.StatusInternalServerError)
		}
	})
	servers, err := lab.StartHTTP(u.ISP, loginPort, mux)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, servers.Close()) })
	names, err := lab.StartNames(u.ISP, u.NextHop(), lab.Zone{loginHost: {u.NextHop().String()}})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, names.Close()) })
	nftablesRules(t, u.ISP, fmt.Sprintf(`table ip hotel { chain in {
		type nat hook prerouting priority dstnat;
		iifname %s tcp dport 80 dnat to %s:%d
	}
}
`, lab.DeviceCustomer, u.NextHop(), loginPort))
}

// output is what a program has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

var proxyOf = regexp.MustCompile(`--proxy (http://127\.0\.0\.1:[0-9]+) '(.*)'\n`)

// openPortal runs `tapgw portal` and returns a client that uses its proxy, the page to open, and what ends it or waits for its end.
func (g *gateway) openPortal(args ...string) (client *http.Client, page string, out *output, process *lab.Cmd) {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.t.Cleanup(cancel)
	out = &output{}
	process = g.ns.Command(ctx, binary(g.t), append([]string{"portal", "--socket", g.socket()}, args...)...)
	process.Stdout, process.Stderr = out, out
	labtest.Must(g.t, process.Start())
	var found []string
	eventually(g.t, "the proxy", func() bool { found = proxyOf.FindStringSubmatch(out.String()); return found != nil })
	proxy, err := url.Parse(found[1])
	labtest.Must(g.t, err)
	client = &http.Client{Timeout: patience, Transport: &http.Transport{
		Proxy: http.ProxyURL(proxy), DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return g.ns.Dial(ctx, network, addr)
		},
	}}
	return client, found[2], out, process
}

// read returns what a request is answered.
func read(t testing.TB, answer *http.Response, err error) string {
	t.Helper()
	labtest.Must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	labtest.Must(t, err)
	if answer.StatusCode/100 != 2 {
		t.Errorf("status %d: %s", answer.StatusCode, text)
	}
	return string(text)
}

// TestFault13_PortalIsOpened: who must sign in on an uplink gets the page by that uplink, while all else goes by the other, and the
// uplink is used once it is done.
func TestFault13_PortalIsOpened(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	walled := topology.Uplinks[0]
	captive(t, walled)
	g := start(t, topology.Gateway, inTurn)
	g.awaitState("wan1", api.StatePortal)
	g.awaitState("wan2", api.StateUp)
	if out, status := g.tapgw("portal", "nosuch"); status != 10 {
		t.Errorf("an unknown uplink: status %d, %s", status, out)
	}
	who, err := g.ns.WhoAmI(labtest.Context(t), lab.ServerAddrs[0])
	labtest.Must(t, err)
	if other := topology.Uplinks[1].Addr(); who.Addr() != other {
		t.Errorf("the host uses %v, not %v", who, other)
	}

	client, page, out, process := g.openPortal("wan1")
	if want := g.uplink("wan1").PortalURL; page != want || !strings.Contains(page, loginHost) {
		t.Errorf("the page is %s, told %s", want, page)
	}
	answer, err := client.Get("http://" + lab.ServerAddrs[0].String() + "/") // redirected, and the name is the provider's
	text := read(t, answer, err)
	from, err := netip.ParseAddrPort(strings.TrimSpace(strings.TrimPrefix(text, "sign in,")[1:]))
	if err != nil || from.Addr() != walled.Addr() {
		t.Errorf("the page is %q, %v; not for %s", text, err, walled.Addr())
	}
	answer, err = client.Get("http://127.0.0.1:1/")
	labtest.Must(t, err)
	if answer.Body.Close(); answer.StatusCode != http.StatusForbidden {
		t.Errorf("this host by its proxy: status %d", answer.StatusCode)
	}
	answer, err = client.Post(page, "text/plain", strings.NewReader("room 101"))
	read(t, answer, err)
	g.awaitState("wan1", api.StateUp)
	if err := process.Wait(); err != nil || !strings.HasSuffix(out.String(), "wan1 is up.\n") {
		t.Errorf("the command ended with %v:\n%s", err, out)
	}
	if out, status := g.tapgw("portal"); status != 0 {
		t.Errorf("without a portal: status %d, %s", status, out)
	}
}

// TestFault13_PortalIsLeft: Ctrl-C ends the proxy.
func TestFault13_PortalIsLeft(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	captive(t, topology.Uplinks[0])
	g := start(t, topology.Gateway, inTurn)
	g.awaitState("wan1", api.StatePortal)
	_, _, out, process := g.openPortal() // there is only one
	labtest.Must(t, process.Process.Signal(syscall.SIGINT))
	if err := process.Wait(); err == nil || process.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "nobody has signed in") {
		t.Errorf("the command ended with %v:\n%s", err, out)
	}
}

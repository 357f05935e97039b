package portal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// fake leads to one server, whatever is asked for.
type fake struct {
	server string
	names  map[string]string
	dialed chan netip.AddrPort
}

func (f *fake) Resolve(_ context.Context, name string) (netip.Addr, error) {
	if a := f.names[name]; a != "" {
		return netip.MustParseAddr(a), nil
	}
	return netip.Addr{}, errors.New("no address of " + name)
}

func (f *fake) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	f.dialed <- to
	var d net.Dialer
	return d.DialContext(ctx, "tcp", f.server)
}

func (f *fake) Own() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, nil
}

// begin runs a proxy to a server with that handler until the test ends, and returns its address.
func begin(t *testing.T, h http.HandlerFunc) (string, *fake) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	f := &fake{server.Listener.Addr().String(), map[string]string{
		"login.test": "198.51.100.9", "rebound.test": "127.0.0.1", "mine.test": "192.0.2.1", "mapped.test": "::ffff:127.0.0.1",
	}, make(chan netip.AddrPort, 100)}
	return serve(t, f), f
}

func serve(t *testing.T, way Way) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, way) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func clientOf(proxy string) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), DisableKeepAlives: true,
	}}
}

func TestPlain(t *testing.T) {
	proxy, f := begin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %q", r.Method, r.Host, r.RequestURI, body, r.Header["X-Forwarded-For"])
	})
	answer, err := clientOf(proxy).Post("http://login.test:8080/in?a=1;b", "text/plain", strings.NewReader("me"))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if want := `POST login.test:8080 /in?a=1;b me []`; err != nil || string(text) != want {
		t.Errorf("got %s, want %s, %v", text, want, err)
	}
	if to := <-f.dialed; to.String() != "198.51.100.9:8080" {
		t.Errorf("connected to %v", to)
	}
}

// TestRedirected: the browser follows redirections, not the proxy.
func TestRedirected(t *testing.T) {
	proxy, f := begin(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://other.test/", http.StatusFound)
	})
	answer, err := clientOf(proxy).Transport.RoundTrip(httptest.NewRequest(http.MethodGet, "http://login.test/", nil))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusFound || len(f.dialed) != 1 {
		t.Errorf("status %d after %d connections", answer.StatusCode, len(f.dialed))
	}
}

// open sends a proxy the beginning of a request and returns the status of the answer; what follows its header is to be read.
func open(t *testing.T, proxy, request string) (net.Conn, *bufio.Reader, int) {
	t.Helper()
	conn, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	status, err := statusOf(r)
	if err != nil {
		t.Fatal(err)
	}
	return conn, r, status
}

// statusOf reads the header of an answer.
func statusOf(r *bufio.Reader) (status int, err error) {
	text := textproto.NewReader(r)
	line, err := text.ReadLine()
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &status); err != nil {
		return 0, err
	}
	_, err = text.ReadMIMEHeader()
	return status, err
}

// TestTunnel: bytes pass both ways, those that come with the request too, and the end of one direction leaves the other.
func TestTunnel(t *testing.T) {
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(c)
			_, _ = c.Write(text)
			c.Close()
		}
	}()
	proxy := serve(t, &fake{echo.Addr().String(), map[string]string{"login.test": "198.51.100.9"}, make(chan netip.AddrPort, 1)})
	conn, r, status := open(t, proxy, "CONNECT login.test:443 HTTP/1.1\r\nHost: login.test:443\r\n\r\nearly")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if _, err := io.WriteString(conn, " late"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); string(text) != "early late" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestTunnelsEndWithTheProxy: the cleanups of the test would wait for one that does not.
func TestTunnelsEndWithTheProxy(t *testing.T) {
	proxy, _ := begin(t, func(http.ResponseWriter, *http.Request) {})
	if _, _, status := open(t, proxy, "CONNECT login.test:80 HTTP/1.1\r\nHost: login.test:80\r\n\r\n"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
}

func TestRefused(t *testing.T) {
	proxy, f := begin(t, func(http.ResponseWriter, *http.Request) { t.Error("a refused target was reached") })
	for target, status := range map[string]int{
		"127.0.0.1:80": 403, "127.8.8.8:80": 403, "0.0.0.0:80": 403, "[::1]:80": 403, "[::]:80": 403, "[::ffff:127.0.0.1]:80": 403,
		"192.0.2.1:22": 403, "[2001:db8::1]:22": 403, "169.254.169.254:80": 403, "224.0.0.1:80": 403, "255.255.255.255:80": 403,
		"[fe80::1]:80": 403, "rebound.test:80": 403, "mine.test:80": 403, "mapped.test:80": 403,
		"localhost:80": 502, "unknown.test:80": 502, "login.test:0": 502, "login.test:65536": 502, "login.test:x": 502,
	} {
		for _, request := range []string{"CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", "GET http://%[1]s/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n"} {
			request = fmt.Sprintf(request, target)
			if _, _, got := open(t, proxy, request); got != status && got != http.StatusBadRequest {
				t.Errorf("%q: status %d, want %d", request, got, status)
			}
		}
	}
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: login.test\r\n\r\n", "GET https://login.test/ HTTP/1.1\r\nHost: login.test\r\n\r\n",
		"GET ftp://login.test/ HTTP/1.1\r\nHost: login.test\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: login.test\r\n\r\n",
	} {
		if _, _, status := open(t, proxy, request); status/100 == 5 || len(f.dialed) > 0 {
			t.Errorf("%q: status %d", request, status)
		}
	}
	if len(f.dialed) > 0 {
		t.Errorf("connected to %v", <-f.dialed)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	proxy, _ := begin(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxHeader)) })
	if _, _, status := open(t, proxy, "GET http://login.test/ HTTP/1.1\r\nHost: login.test\r\n\r\n"); status != http.StatusBadGateway {
		t.Errorf("status %d of a large answer", status)
	}
	large := "GET http://login.test/ HTTP/1.1\r\nHost: login.test\r\nX: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n"
	if _, _, status := open(t, proxy, large); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d of a large request", status)
	}
}

// TestConnectionsAreBounded: those above the limit wait until another ends.
func TestConnectionsAreBounded(t *testing.T) {
	proxy, f := begin(t, func(http.ResponseWriter, *http.Request) {})
	const request = "CONNECT login.test:80 HTTP/1.1\r\nHost: login.test:80\r\n\r\n"
	first, _, _ := open(t, proxy, request)
	for range maxConns - 1 {
		open(t, proxy, request)
	}
	waiting := make(chan int)
	go func() {
		conn, err := net.Dial("tcp", proxy)
		if err != nil {
			waiting <- 0
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, request)
		status, err := statusOf(bufio.NewReader(conn))
		if err != nil {
			waiting <- 0
			return
		}
		waiting <- status
	}()
	select {
	case status := <-waiting:
		t.Errorf("one more was served: status %d", status)
	case <-time.After(100 * time.Millisecond):
	}
	if len(f.dialed) != maxConns {
		t.Errorf("%d connections", len(f.dialed))
	}
	first.Close()
	select {
	case status := <-waiting:
		if status != http.StatusOK {
			t.Errorf("status %d", status)
		}
	case <-time.After(patience):
		t.Error("a free slot is not used")
	}
}

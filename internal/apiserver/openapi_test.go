package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"tapgw/api"
	"tapgw/internal/golden"
)

const openAPIFile = "../../docs/openapi.yaml"

// TestOpenAPISchemas: the types in docs/openapi.yaml are those of package api.
func TestOpenAPISchemas(t *testing.T) {
	text, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "\n  schemas:\n"
	head, _, found := strings.Cut(string(text), begin)
	if !found {
		t.Fatalf("no %q in %s", begin, openAPIFile)
	}
	golden.Text(t, openAPIFile, head+begin+schemas(t))
}

// strict reads the description and lets no schema have other fields than the named ones.
func strict(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range doc.Components.Schemas {
		s.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: new(bool)}
	}
	return doc
}

// patterns are the requests that some of the sources serve, as they name them.
func patterns(t *testing.T, as string, of func(file string) bool) (served []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") || !of(file) {
			continue
		}
		for _, m := range regexp.MustCompile(as).FindAllSubmatch(text, -1) {
			served = append(served, string(m[1]))
		}
	}
	slices.Sort(served)
	return served
}

// dashboardFile is the source of what has an address of its own.
const dashboardFile = "dashboard.go"

// TestOpenAPIPaths: the description has the requests that the server knows, and no others, and says which the dashboard knows.
func TestOpenAPIPaths(t *testing.T) {
	socket := patterns(t, `\.Handle(?:Func)?\("([A-Z]+ /[^"]*)"`, func(file string) bool { return file != dashboardFile })
	page := patterns(t, `"([A-Z]+ /[^"]*)"`, func(file string) bool { return file == dashboardFile })
	var onSocket, onPage []string
	for path, item := range strict(t).Paths.Map() {
		for method, op := range item.Operations() {
			if len(item.Servers) == 0 {
				onSocket = append(onSocket, method+" "+path)
			}
			if slices.Contains(op.Tags, "dashboard") {
				onPage = append(onPage, method+" "+path)
			}
		}
	}
	slices.Sort(onSocket)
	slices.Sort(onPage)
	if !slices.Equal(socket, onSocket) {
		t.Errorf("the server has\n%s\nand docs/openapi.yaml\n%s", strings.Join(socket, "\n"), strings.Join(onSocket, "\n"))
	}
	if !slices.Equal(page, onPage) {
		t.Errorf("the dashboard has\n%s\nand docs/openapi.yaml\n%s", strings.Join(page, "\n"), strings.Join(onPage, "\n"))
	}
}

// full is a daemon of which every field says something.
func full() *fakeDaemon {
	fake := newFake()
	addr, at := netip.MustParseAddr("192.0.2.1"), time.Unix(1e9, 0)
	fake.State.DatapathBypasses = []string{"a tc filter of eth0"}
	fake.State.Uplinks[1] = api.Uplink{
		Name: "lte", Interface: "wwan0", State: api.StateUp, Addresses: []netip.Addr{addr}, Gateway: addr, RxBps: 1.5, StandsIn: "fiber", Suspect: true,
		Since: at, IPv6: api.IPv6{State: api.StateDown, Addresses: []netip.Addr{addr}, Suspect: true, Since: at},
		Metered: true, Usage: api.Usage{UsedBytes: 1<<64 - 1, CapBytes: 20e9, ResetsAt: at, State: api.UsageOK},
	}
	fake.Table = sessions(8)
	fake.Pinned = []api.Pin{{Inside: addr, Site: "example.com", Uplink: "lte", Until: at}, {Uplink: "lte"}}
	fake.Probes = []api.Probe{{Uplink: "lte", Answers: []api.ProbeAnswer{{Family: api.FamilyIPv4, Target: "icmp://192.0.2.9", RTTMs: 1.5}}}}
	fake.Reply = api.Why{Outcome: api.OutcomePlaced, Rules: []api.WhyRule{{Name: "a"}}, Uplinks: []api.WhyUplink{{Name: "lte", Chosen: true}}}
	return fake
}

// TestOpenAPIAnswers asks a running server everything, with all parameters that are described and with none, and its answers are as
// described.
func TestOpenAPIAnswers(t *testing.T) {
	doc := strict(t)
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := serving(t, full())
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			for _, all := range []bool{true, false} {
				if len(item.Servers) == 0 {
					check(t, bySocket(c), router, request(t, method, path, item.GetOperation(method), all))
				}
			}
		}
	}
	for _, wrong := range []string{"GET /v1/sessions?limit=x", "GET /v1/sessions?uplink=dsl", "POST /v1/uplinks/dsl/enable", "POST /v1/uplinks/lte/usage",
		"POST /v1/pins?uplink=lte&inside=lte", "POST /v1/pins?uplink=lte&seconds=0", "POST /v1/pins?uplink=dsl"} {
		method, path, _ := strings.Cut(wrong, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, "http://tapgw"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if code := check(t, bySocket(c), router, r); code < 400 {
			t.Errorf("%s: %d", wrong, code)
		}
	}
}

// TestOpenAPIDashboard: what the dashboard answers to somebody who has signed in, and to others, is as described.
func TestOpenAPIDashboard(t *testing.T) {
	doc := strict(t)
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "0123456789abcdef"} {
		b, c := browse(t, full(), token)
		address, err := c.SignInURL(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		entry, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://tapgw"+strings.TrimPrefix(address, b.base), nil)
		if err != nil {
			t.Fatal(err)
		}
		if code := check(t, b.byTCP(), router, entry); code != http.StatusSeeOther {
			t.Errorf("signing in: %d", code)
		}
		for _, as := range []browser{newBrowser(t, b.base), b} {
			for path, item := range doc.Paths.Map() {
				for method, op := range item.Operations() {
					if slices.Contains(op.Tags, "dashboard") && (token == "" || len(item.Servers) > 0) {
						check(t, as.byTCP(), router, request(t, method, path, op, true))
					}
				}
			}
		}
	}
}

// bySocket sends requests to the control socket.
func bySocket(c *api.Client) http.RoundTripper {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}
}

// asBrowser sends them to a dashboard, with and to the cookies of a browser.
type asBrowser struct{ browser }

func (b browser) byTCP() http.RoundTripper { return asBrowser{b} }

// RoundTrip follows no redirection.
func (b asBrowser) RoundTrip(r *http.Request) (*http.Response, error) {
	at, err := url.Parse(b.base)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = at.Scheme, at.Host, at.Host
	for _, cookie := range b.http.Jar.Cookies(at) {
		r.AddCookie(cookie)
	}
	answer, err := b.http.Transport.RoundTrip(r)
	if err == nil {
		b.http.Jar.SetCookies(at, answer.Cookies())
	}
	return answer, err
}

// request has the examples of the parameters: of all, or of those that must be there.
func request(t *testing.T, method, path string, op *openapi3.Operation, all bool) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://tapgw"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	query := r.URL.Query()
	for _, p := range op.Parameters {
		example := strings.Trim(strings.TrimSpace(asText(t, p.Value.Example)), `"`)
		switch {
		case p.Value.In == openapi3.ParameterInPath:
			r.URL.Path = strings.ReplaceAll(r.URL.Path, "{"+p.Value.Name+"}", example)
		case p.Value.In == openapi3.ParameterInQuery && (all || p.Value.Required):
			query.Set(p.Value.Name, example)
		}
	}
	r.URL.RawQuery = query.Encode()
	return r
}

// check sends a request and fails the test unless the answer is as described.
func check(t *testing.T, by http.RoundTripper, router routers.Router, r *http.Request) (code int) {
	t.Helper()
	route, variables, err := router.FindRoute(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	answer, err := by.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body := firstOf(t, answer)
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: variables, Route: route},
		Status:                 answer.StatusCode, Header: answer.Header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(t.Context(), input); err != nil {
		t.Errorf("%s %s: %v\n%s", r.Method, r.URL, err, body)
	}
	return answer.StatusCode
}

// firstOf is the body, of a stream its first line.
func firstOf(t *testing.T, answer *http.Response) []byte {
	t.Helper()
	var body []byte
	var err error
	if kind := answer.Header.Get("Content-Type"); strings.HasSuffix(kind, "ndjson") || strings.HasSuffix(kind, "event-stream") {
		body, err = bufio.NewReader(answer.Body).ReadBytes('\n')
	} else {
		body, err = io.ReadAll(answer.Body)
	}
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func init() {
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.JSONBodyDecoder)
	for _, text := range []string{"application/yaml", "text/event-stream", "text/html"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.FileBodyDecoder)
	}
}

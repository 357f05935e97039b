package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// DefaultSocket is where the daemon listens unless told otherwise.
const DefaultSocket = "/run/tapgw/tapgw.sock"

// SocketEnv is the environment variable that names another socket.
const SocketEnv = "TAPGW_SOCKET"

// Limits that keep a misbehaving server from filling our memory or holding us up.
const (
	callTimeout  = 15 * time.Second
	listTimeout  = 2 * time.Minute // of a session list
	maxAnswer    = 16 << 20
	maxSessions  = 1 << 30 // bytes of a session list: two million sessions take about half
	maxEventLine = 64 << 10
	maxError     = 64 << 10
)

// Client talks to a running daemon. The zero value uses DefaultSocket; it may be used concurrently.
type Client struct {
	Socket string // path of the unix socket
}

// Filter narrows a list of sessions; zero fields match everything.
type Filter struct {
	Uplink string     // name
	Proto  string     // as Session.Proto
	Inside netip.Addr // address of the inside endpoint
	Match  string     // in addresses, uplink, state, rule, program or names, in any case of letters
	Sort   string     // one of the Sort constants: the first Limit in that order, at most MaxSorted, with rates, programs and names
	Limit  int        // at most so many
}

// Status returns the state of the daemon and its uplinks.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.get(ctx, "/v1/status", &s)
	return s, err
}

// Version returns the version of the running daemon, which may differ from the caller's.
func (c *Client) Version(ctx context.Context) (string, error) {
	var v Version
	err := c.get(ctx, "/v1/version", &v)
	return v.Version, err
}

// Access returns what the caller may do.
func (c *Client) Access(ctx context.Context) (Access, error) {
	var a Access
	err := c.get(ctx, "/v1/access", &a)
	return a, err
}

// Sessions returns the sessions that match f, in no particular order unless it asks for one; the list is never nil. To measure
// rates takes a second where nobody has asked for them lately.
func (c *Client) Sessions(ctx context.Context, f Filter) ([]Session, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list := []Session{}
	path := "/v1/sessions"
	if q := f.query(); q != "" {
		path += "?" + q
	}
	err := c.fetch(ctx, path, maxSessions, &list)
	return list, err
}

func (f Filter) query() string {
	q := url.Values{}
	if f.Uplink != "" {
		q.Set("uplink", f.Uplink)
	}
	if f.Proto != "" {
		q.Set("proto", f.Proto)
	}
	if f.Inside.IsValid() {
		q.Set("inside", f.Inside.String())
	}
	if f.Match != "" {
		q.Set("match", f.Match)
	}
	if f.Sort != "" {
		q.Set("sort", f.Sort)
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q.Encode()
}

// Question is a session that Why is asked about: one that does not exist yet, or perhaps does.
type Question struct {
	Proto  string         // tcp, udp or icmp
	Remote netip.AddrPort // without port for icmp
	From   netip.AddrPort // inside endpoint; no address for this host itself, no port for one that is not in use
	DSCP   uint8
}

// Why returns what would become of a session, and why; ErrBadQuestion when nobody behind the gateway could begin it.
func (c *Client) Why(ctx context.Context, q Question) (Why, error) {
	v := url.Values{"proto": {q.Proto}, "dst": {q.Remote.Addr().String()}}
	for key, number := range map[string]uint16{"port": q.Remote.Port(), "from_port": q.From.Port(), "dscp": uint16(q.DSCP)} {
		if number != 0 {
			v.Set(key, strconv.Itoa(int(number)))
		}
	}
	if q.From.Addr().IsValid() {
		v.Set("from", q.From.Addr().String())
	}
	var w Why
	err := c.get(ctx, "/v1/why?"+v.Encode(), &w)
	return w, err
}

// Config returns the configuration in force, as YAML.
func (c *Client) Config(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := c.do(ctx, http.MethodGet, "/v1/config")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, maxAnswer))
}

// SetUplink enables or disables the uplink called name; ErrUnknownUplink when there is none.
func (c *Client) SetUplink(ctx context.Context, name string, enabled bool) error {
	verb := "disable"
	if enabled {
		verb = "enable"
	}
	return c.post(ctx, uplinkPath(name, verb))
}

// Usage returns what each uplink has used in its billing period; the list is never nil.
func (c *Client) Usage(ctx context.Context) ([]UplinkUsage, error) {
	list := []UplinkUsage{}
	err := c.get(ctx, "/v1/usage", &list)
	return list, err
}

// SetUsage says how many bytes the uplink called name has used in its billing period; ErrUnknownUplink when there is none.
func (c *Client) SetUsage(ctx context.Context, name string, bytes uint64) error {
	return c.post(ctx, uplinkPath(name, "usage")+"?used_bytes="+strconv.FormatUint(bytes, 10))
}

// History returns what the uplinks carried in one of the spans.
func (c *Client) History(ctx context.Context, span string) (History, error) {
	var h History
	err := c.get(ctx, "/v1/history?span="+url.QueryEscape(span), &h)
	return h, err
}

// PastEvents returns what happened, the oldest first, as far as it is remembered; the list is never nil.
func (c *Client) PastEvents(ctx context.Context) ([]Event, error) {
	list := []Event{}
	err := c.get(ctx, "/v1/history/events", &list)
	return list, err
}

// SessionGroups returns the sessions that mention filter, by uplink, host, site or session.
func (c *Client) SessionGroups(ctx context.Context, by, filter string) (SessionGroups, error) {
	var g SessionGroups
	err := c.get(ctx, "/v1/sessions/groups?"+url.Values{"by": {by}, "filter": {filter}}.Encode(), &g)
	return g, err
}

// DashboardURL returns where the page for a browser is, "" where it is not served.
func (c *Client) DashboardURL(ctx context.Context) (string, error) {
	var d Dashboard
	err := c.get(ctx, "/v1/dashboard", &d)
	return d.URL, err
}

// SignInURL returns where a browser gets the rights of the caller at the dashboard: soon, and once.
func (c *Client) SignInURL(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var d Dashboard
	err := c.call(ctx, http.MethodPost, "/v1/dashboard/sign-in", maxAnswer, &d)
	return d.URL, err
}

// Reload makes the daemon read its configuration again; ErrBadConfig when it is wrong and the old one stays.
func (c *Client) Reload(ctx context.Context) error { return c.post(ctx, "/v1/reload") }

// Events calls fn for every event until ctx ends (then it returns nil) or the stream does (ErrStreamEnded). The first
// events are the present states of all uplinks (EventSnapshot).
func (c *Client) Events(ctx context.Context, fn func(Event)) error {
	body, err := c.do(ctx, http.MethodGet, "/v1/events")
	if err != nil {
		return orNil(ctx, err)
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		fn(e)
	}
	return orNil(ctx, errors.Join(ErrStreamEnded, lines.Err()))
}

func orNil(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.fetch(ctx, path, maxAnswer, into)
}

func (c *Client) fetch(ctx context.Context, path string, limit int64, into any) error {
	return c.call(ctx, http.MethodGet, path, limit, into)
}

func (c *Client) call(ctx context.Context, method, path string, limit int64, into any) error {
	body, err := c.do(ctx, method, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, limit)).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

func (c *Client) post(ctx context.Context, path string) error {
	return c.change(ctx, http.MethodPost, path)
}

// change asks for something that has no answer.
func (c *Client) change(ctx context.Context, method, path string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := c.do(ctx, method, path)
	if err != nil {
		return err
	}
	return body.Close()
}

// do sends one request and returns the body of a good answer, which the caller closes.
func (c *Client) do(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://tapgw"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.http().Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if answer.StatusCode < 300 {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	return nil, readError(answer)
}

// http uses one connection per call: calls are rare, and nothing idles behind the caller's back.
func (c *Client) http() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.socket())
		},
	}}
}

func (c *Client) socket() string {
	if c.Socket == "" {
		return DefaultSocket
	}
	return c.Socket
}

// closedEarly is how net/http, which exports no such error, says that the connection was closed before the request was written.
const closedEarly = "server closed idle connection"

// explain turns a failed request into what it means and what to do.
func (c *Client) explain(err error) error {
	var op *net.OpError
	dialing := errors.As(err, &op) && op.Op == "dial"
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the daemon on %s does not answer; see its log: %w", c.socket(), err)
	case dialing && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w to open %s; check the modes of its folders", ErrDenied, c.socket())
	case dialing && !(errors.As(err, &timeout) && timeout.Timeout()):
		return fmt.Errorf("%w on %s; start it with \"sudo tapgw run\" or \"sudo systemctl start tapgw\"", ErrNoDaemon, c.socket())
	case op != nil, errors.Is(err, io.EOF), strings.Contains(err.Error(), closedEarly):
		return fmt.Errorf("%w: the daemon closed %s; end other clients of this user, or see its log", ErrBusy, c.socket())
	}
	return fmt.Errorf("ask the daemon on %s: %w", c.socket(), err)
}

func readError(answer *http.Response) error {
	e := &Error{Code: answer.StatusCode}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxError))
	if err != nil || json.Unmarshal(body, e) != nil || e.Message == "" {
		e.Message = fmt.Sprintf("the daemon answered %s: %s", answer.Status, bytes.TrimSpace(body))
	}
	return e
}

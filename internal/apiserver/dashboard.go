package apiserver

import (
	"crypto/subtle"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"tapgw/api"
)

// Dashboard says where the page for a browser is served, and to whom.
type Dashboard struct {
	Address netip.AddrPort // invalid for nowhere
	Token   string         // that everything needs, or "" where everybody who reaches Address may look
	Page    fs.FS          // index.html, and sign-in.html for who must say the token first
	// UserOf says whose socket of this host has these ends, if one has; nil where nobody can tell.
	UserOf func(local, remote netip.AddrPort) (uid uint32, ok bool)
}

const (
	maxDashboardTCP = 128 // connections at once
	cookieName      = "tapgw"
	// contentPolicy: nothing of others, nothing inline, and in no frame.
	contentPolicy = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)

// dashboard is the page for a browser, and who has signed in there.
type dashboard struct {
	Dashboard
	listener net.Listener // nil while it is not served
	keys     *tickets     // of URLs that sign in
	signed   *tickets     // in cookies
	guessing sync.Mutex
}

func newDashboard(d Dashboard, now func() time.Time) *dashboard {
	return &dashboard{Dashboard: d, keys: newTickets(now, keyLife), signed: newTickets(now, signedLife)}
}

// listen opens the address. The gateway does not depend on it, so it only tells when that fails.
func (s *Server) listenDashboard() {
	d := s.dashboard
	if !d.Address.IsValid() {
		return
	}
	l, err := net.Listen("tcp", d.Address.String())
	if err != nil {
		s.log.Warn("no dashboard: set dashboard.listen to another address, or to \"\" for none, and restart", "error", err)
		return
	}
	d.listener = netutil.LimitListener(l, maxDashboardTCP)
}

// url is where a browser on this host finds it, "" for nowhere.
func (d *dashboard) url() string {
	if d.listener == nil {
		return ""
	}
	at := d.Address
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return "http://" + at.String() + "/"
}

// DashboardURL is where the page is, once Ready; "" for nowhere.
func (s *Server) DashboardURL() string { return s.dashboard.url() }

// dashboardURL answers GET /v1/dashboard.
func (s *Server) dashboardURL(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, api.Dashboard{URL: s.dashboard.url()})
}

// admit answers POST /v1/dashboard/sign-in with a URL that is good for once.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) {
	url := s.dashboard.url()
	if url == "" {
		writeError(w, api.StatusCode(api.ErrConflict), "there is no dashboard", "set dashboard.listen, and see the daemon's log after a restart")
		return
	}
	writeJSON(w, api.Dashboard{URL: url + "sign-in?key=" + s.dashboard.keys.issue(peerOf(r.Context()))})
}

// dashboardHandler is everything at the dashboard's address.
func (s *Server) dashboardHandler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handler := range map[string]http.HandlerFunc{
		"GET /v1/live": s.live, "GET /v1/status": s.status, "GET /v1/sessions": s.sessions, "GET /v1/sessions/groups": s.groups,
		"GET /v1/history": s.history, "GET /v1/history/events": s.pastEvents,
		"POST /v1/uplinks/{name}/enable": s.guard(s.setUplink(true)), "POST /v1/uplinks/{name}/disable": s.guard(s.setUplink(false)),
		"POST /v1/uplinks/{name}/metered": s.changer("uplink metered", s.setMetered), "POST /v1/prefer": s.changer("uplink preferred", s.prefer),
		"GET /v1/pins": s.pins, "POST /v1/pins": s.changer("host pinned to an uplink", s.pinHost), "DELETE /v1/pins": s.changer("host pinned no longer", s.unpin),
		"POST /v1/pause": s.changer("capture paused", s.pause), "POST /v1/resume": s.changer("capture resumed", s.resume),
		"GET /sign-in": s.signInByKey, "POST /sign-in": s.signInByToken,
	} {
		mux.HandleFunc(pattern, handler)
	}
	mux.Handle("GET /", http.FileServerFS(s.dashboard.Page))
	return shielded(s.named(http.NewCrossOriginProtection().Handler(s.identified(mux))))
}

// shielded tells browsers what the page never does.
func shielded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// named refuses names, as a page of others may have one of its own resolve to our address (DNS rebinding). Where the address is not
// a loopback one, ours is only known to whoever has the token, so any address is good.
func (s *Server) named(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.Host) && !(s.dashboard.Token != "" && isAddress(r.Host)) {
			writeError(w, http.StatusForbidden, "the dashboard answers only to its address", "open "+s.dashboard.url())
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isAddress(hostport string) bool {
	_, err := netip.ParseAddrPort(hostport)
	return err == nil
}

// identified finds out who asks; where there is a token, nobody else gets further than to where it is asked for.
func (s *Server) identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie(cookieName); err == nil {
			if p := s.dashboard.signed.holder(cookie.Value); p != nil {
				next.ServeHTTP(w, r.WithContext(asPeer(r.Context(), p)))
				return
			}
		}
		switch {
		case s.dashboard.Token == "", r.URL.Path == "/sign-in", r.URL.Path == "/style.css":
			next.ServeHTTP(w, r)
		case r.URL.Path == "/":
			http.ServeFileFS(w, r, s.dashboard.Page, "sign-in.html")
		default:
			writeError(w, http.StatusUnauthorized, "sign in first", "open "+s.dashboard.url())
		}
	})
}

// signInByKey takes a URL that `tapgw web` has printed.
func (s *Server) signInByKey(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	if p := s.dashboard.keys.holder(key); p != nil && s.isAnother(r, p) {
		s.log.Warn("a URL that signs in was opened by another user", "uid", p.uid, "from", r.RemoteAddr)
		writeError(w, http.StatusForbidden, "this URL is for another user", "run \"tapgw web\" as the user whose browser it is")
		return
	}
	p := s.dashboard.keys.take(key)
	if p == nil {
		writeError(w, http.StatusForbidden, "this URL was used, or is too old", "run \"tapgw web\" again")
		return
	}
	s.remember(w, r, p)
}

// isAnother reports whether a request comes from a program of this host that is not p's: all users can read the command lines of
// others' browsers, in which the URL is. Who is root passes it on to whom they like.
func (s *Server) isAnother(r *http.Request, p *peer) bool {
	here, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	browser, err := netip.ParseAddrPort(r.RemoteAddr)
	if !ok || err != nil || s.dashboard.UserOf == nil || p.uid == 0 || p.uid == uint32(os.Geteuid()) {
		return false
	}
	plain := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
	uid, known := s.dashboard.UserOf(plain(browser), plain(here.AddrPort()))
	return known && uid != p.uid && uid != 0
}

// signInByToken takes the form of sign-in.html. Who knows the token may do what the daemon's own user may.
func (s *Server) signInByToken(w http.ResponseWriter, r *http.Request) {
	token := s.dashboard.Token
	if token == "" || subtle.ConstantTimeCompare([]byte(r.PostFormValue("token")), []byte(token)) != 1 {
		s.dashboard.delay()
		s.log.Warn("wrong token at the dashboard", "from", r.RemoteAddr)
		writeError(w, http.StatusForbidden, "this is not the token", fmt.Sprintf("it is in the file dashboard.token_file; go back to %s", s.dashboard.url()))
		return
	}
	s.remember(w, r, &peer{uid: uint32(os.Geteuid()), pid: int32(os.Getpid())})
}

// guessPause is how long each wrong token takes, one after the other.
const guessPause = 200 * time.Millisecond

// delay slows down who guesses, and what the log says of it.
func (d *dashboard) delay() {
	d.guessing.Lock()
	defer d.guessing.Unlock()
	time.Sleep(guessPause)
}

// remember signs p in and shows the page.
func (s *Server) remember(w http.ResponseWriter, r *http.Request, p *peer) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: s.dashboard.signed.issue(p), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		MaxAge: int(signedLife.Seconds()),
	})
	s.log.Info("signed in at the dashboard", "uid", p.uid, "from", r.RemoteAddr)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

package e2e

import (
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// tab is a page in a Chromium that runs in a namespace.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu     sync.Mutex
	faults []string // what scripts threw, and what the page's own policy forbade
}

var devTools = regexp.MustCompile(`DevTools listening on (ws://127\.0\.0\.1:([0-9]+)/\S+)`)

// openTab starts a browser and opens an address.
func openTab(t testing.TB, ns *lab.Namespace, address string) *tab {
	t.Helper()
	endpoint := startBrowser(t, ns)
	allocator, stop := chromedp.NewRemoteAllocator(t.Context(), endpoint, chromedp.NoModifyURL)
	t.Cleanup(stop)
	ctx, leave := chromedp.NewContext(allocator)
	t.Cleanup(leave)
	b := &tab{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, b.hear)
	b.do(log.Enable(), chromedp.Navigate(address))
	return b
}

// startBrowser returns where its DevTools listen, as seen from outside of the namespace.
func startBrowser(t testing.TB, ns *lab.Namespace) (endpoint string) {
	t.Helper()
	ctx, kill := context.WithCancel(context.Background())
	said := &output{}
	profile, err := os.MkdirTemp("", "browser") // which it may still write when it is killed
	labtest.Must(t, err)
	browser := ns.Command(ctx, "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--remote-debugging-port=0", "--user-data-dir="+profile, "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars", "about:blank")
	browser.Env = append(os.Environ(), "HOME="+profile, "TMPDIR="+profile)
	browser.Stdout, browser.Stderr = said, said
	labtest.Must(t, browser.Start())
	t.Cleanup(func() {
		kill()
		_ = browser.Wait()
		_ = os.RemoveAll(profile)
	})
	var found []string
	eventually(t, "the browser", func() bool { found = devTools.FindStringSubmatch(said.String()); return found != nil })
	at, err := url.Parse(found[1])
	labtest.Must(t, err)
	at.Host = relay(t, ns, "127.0.0.1:"+found[2])
	return at.String()
}

// relay makes a TCP address of a namespace reachable on the loopback of this process.
func relay(t testing.TB, ns *lab.Namespace, to string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	labtest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := ns.Dial(t.Context(), "tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			go pipe(near, far)
			go pipe(far, near)
		}
	}()
	return l.Addr().String()
}

// pipe copies until one side closes, and then closes the other.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
}

// hear notes what went wrong in the page.
func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, e.ExceptionDetails.Error())
	case *log.EventEntryAdded:
		if e.Entry.Source == log.SourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
			b.faults = append(b.faults, e.Entry.Text)
		}
	}
}

// sound fails the test if anything went wrong in the page.
func (b *tab) sound() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		b.t.Errorf("in the page: %s", fault)
	}
}

func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	labtest.Must(b.t, chromedp.Run(b.ctx, actions...))
}

// await waits until an expression is true in the page.
func (b *tab) await(what, expression string) {
	b.t.Helper()
	err := chromedp.Run(b.ctx, chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(patience)))
	if err != nil {
		var text string
		_ = chromedp.Run(b.ctx, chromedp.Evaluate("document.body.innerText", &text))
		b.t.Fatalf("%s: %v; the page says:\n%s", what, err, text)
	}
}

// text is what an expression gives.
func (b *tab) text(expression string) (text string) {
	b.t.Helper()
	b.do(chromedp.Evaluate(expression, &text))
	return text
}

// look changes size and colours of the page.
func (b *tab) look(width, height int64, scheme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// shoot saves a picture of the whole page.
func (b *tab) shoot(name string) {
	b.t.Helper()
	var png []byte
	b.do(chromedp.FullScreenshot(&png, 100))
	labtest.Must(b.t, os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), png, 0o644))
}

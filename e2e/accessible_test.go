package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// axeRun has axe-core find what breaks the rules of WCAG 2.2, levels A and AA, which it can tell of about half of them.
const axeRun = `axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}).then((r) => ({
  Kept: r.passes.length,
  Broken: r.violations.flatMap((v) => v.nodes.map((n) => v.id + ' at ' + n.target.join(' ') + ': ' + n.failureSummary)),
}))`

// accessible fails the test for what of the page some people cannot use.
func (b *tab) accessible(what string) {
	b.t.Helper()
	text, err := os.ReadFile("../bin/axe.min.js") // made by `make peers`
	labtest.Must(b.t, err)
	var found struct {
		Kept   int
		Broken []string
	}
	b.do(chromedp.Evaluate(string(text), nil), chromedp.Evaluate(axeRun, &found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		return p.WithAwaitPromise(true)
	}))
	if found.Kept < 10 || len(found.Broken) > 0 {
		b.t.Errorf("%s: %d rules are kept, and these are broken, or the first ten:\n%s", what, found.Kept, strings.Join(found.Broken[:min(len(found.Broken), 10)], "\n"))
	}
}

// accessibleIn is accessible in several looks.
func (b *tab) accessibleIn(looks []lookedAt, what string) {
	b.t.Helper()
	for _, l := range looks {
		b.look(l.width, l.height, l.scheme)
		b.accessible(what + ", " + l.scheme + " " + l.name)
	}
}

// called is what a screen reader calls an element.
const called = `((e) => e.ariaLabel || e.labels?.[0]?.firstChild.textContent.trim() || e.innerText)`

// focus is what the keyboard is at.
func (b *tab) focus() string {
	b.t.Helper()
	return b.text(called + `(document.activeElement)`)
}

// reach presses the Tab key until the keyboard is at what is called so.
func (b *tab) reach(name string) {
	b.t.Helper()
	var passed []string
	for range 60 {
		b.do(chromedp.KeyEvent(kb.Tab))
		at := b.focus()
		if at == name {
			return
		}
		passed = append(passed, at)
	}
	b.t.Fatalf("Tab never comes to %q, but to %q", name, passed)
}

// TestDashboardByKeyboard: who has a keyboard alone signs in with the token, comes by everything in the order of the page, sees where they
// are, and can change what others can.
func TestDashboardByKeyboard(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef"
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	file := filepath.Join(t.TempDir(), "token")
	labtest.Must(t, os.WriteFile(file, []byte(token), 0o600))
	g := start(t, topology.Gateway, "uplinks: [{name: fibre, interface: wan1}, {name: cable, interface: wan2}]\ndashboard: {token_file: "+file+"}\n")
	g.awaitState("fibre", api.StateUp)
	g.awaitState("cable", api.StateUp)
	address, err := g.client.DashboardURL(t.Context())
	labtest.Must(t, err)
	b := openTab(t, g.ns, address)
	b.await("the form", `document.activeElement?.id === 'token'`)
	b.accessibleIn(opposite, "signing in")
	b.look(1280, 900, "light")
	_, err = chromedp.RunResponse(b.ctx, chromedp.KeyEvent(token+kb.Enter))
	labtest.Must(t, err)
	b.await("the controls", `document.querySelectorAll('.controls button').length > 4 && document.querySelector('summary')`)

	b.walk()
	b.reach("Disable cable")
	b.do(chromedp.KeyEvent(" "))
	b.await("the state", card("cable", ".state strong")+`.innerText === 'disabled'`)
	b.reach("Enable cable")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await("it is used again", card("cable", ".state strong")+`.innerText === 'up'`)
	b.reach("Client")
	b.do(chromedp.KeyEvent("10.1.2.3"))
	b.reach("Site")
	b.do(chromedp.KeyEvent("example.com"))
	b.reach("Pin")
	b.do(chromedp.KeyEvent(" "))
	b.await("the pin", `document.querySelector('.pins tbody')?.innerText.includes('example.com')`)
	if list, err := g.client.Pins(t.Context()); err != nil || len(list) != 1 || fmt.Sprintf("%s %s", list[0].Inside, list[0].Site) != "10.1.2.3 example.com" {
		t.Errorf("%v, %v", list, err)
	}
	b.reach("Unpin 10.1.2.3 to example.com")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.await("no pin", `!document.querySelector('.pins tbody')`)
	b.sound()
}

// walk has the Tab key come by all controls in their order, and the browser mark each.
func (b *tab) walk() {
	b.t.Helper()
	var want, got []string
	b.do(chromedp.Evaluate(`[...document.querySelectorAll('button:not(:disabled), input, select, a[href], summary')].map(`+called+`)`, &want))
	for range want {
		b.do(chromedp.KeyEvent(kb.Tab))
		got = append(got, b.focus())
		if b.text(`getComputedStyle(document.activeElement).outlineStyle`) == "none" {
			b.t.Errorf("nothing marks %q", got[len(got)-1])
		}
	}
	if !slices.Equal(got, want) || len(want) < 12 {
		b.t.Errorf("Tab comes by\n%q, not\n%q", got, want)
	}
}

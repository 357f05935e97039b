package tray

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"

	"tapgw/api"
	"tapgw/internal/portal"
)

// openDashboard opens it in the user's browser, which goes on without us, with the rights that the user has.
func (a *applet) openDashboard(ctx context.Context) error {
	page, err := a.client.SignInURL(ctx)
	if errors.Is(err, api.ErrDenied) {
		page, err = a.client.DashboardURL(ctx)
	}
	switch {
	case err != nil:
		return err
	case page == "":
		return errors.New("the dashboard is switched off; set dashboard.listen in the configuration")
	}
	c := exec.Command("xdg-open", page)
	if err := c.Start(); err != nil {
		return fmt.Errorf("cannot open a browser; run \"tapgw web\": %w", err)
	}
	go func() { _ = c.Wait() }()
	return nil
}

// signIn opens the page of an uplink that wants somebody to sign in, until that is done or the browser is closed.
func (a *applet) signIn(ctx context.Context, uplink string) {
	if !a.signs.TryLock() {
		a.voice.say(note{topic: "error", summary: "A page to sign in is open already", body: "Close its window first."})
		return
	}
	a.tasks.Go(func() {
		defer a.signs.Unlock()
		if err := a.browse(ctx, uplink); err != nil && ctx.Err() == nil {
			a.voice.say(note{topic: "error", summary: "No page to sign in by " + plain(uplink), body: sentence(err.Error())})
		}
	})
}

// browse runs a browser that uses one uplink alone.
func (a *applet) browse(ctx context.Context, uplink string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gate, proxy, err := openGate(ctx, uplink, a.client.Socket)
	if err != nil {
		return err
	}
	profile, err := os.MkdirTemp("", "tapgw-portal-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(profile)
	c, err := browser(ctx, profile, gate)
	if err == nil {
		err = c.Run()
	}
	cancel()
	_ = proxy.Wait() // it was told to end, or has
	return err
}

// openGate runs `tapgw portal`, which is the proxy.
func openGate(ctx context.Context, uplink, socket string) (portal.Gate, *exec.Cmd, error) {
	c := exec.CommandContext(ctx, program(), "portal", "--json", "--socket", socket, "--", uplink)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	var gate portal.Gate
	out, err := c.StdoutPipe()
	if err != nil {
		return gate, nil, err
	}
	if err := c.Start(); err != nil {
		return gate, nil, err
	}
	line, err := bufio.NewReaderSize(out, maxGate).ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &gate)
	}
	if err == nil {
		err = checkGate(gate)
	}
	if err != nil {
		return gate, nil, errors.Join(fmt.Errorf("tapgw portal %s does not say where its proxy is", uplink), c.Cancel(), c.Wait())
	}
	return gate, c, nil
}

// maxGate is the longest line of `tapgw portal`.
const maxGate = 64 << 10

// checkGate refuses what a browser could take for something else than a page: the network chose it.
func checkGate(g portal.Gate) error {
	page, err := url.Parse(g.URL)
	if err != nil || page.Scheme != "http" && page.Scheme != "https" || page.Host == "" {
		return fmt.Errorf("%q is no page", g.URL)
	}
	_, err = netip.ParseAddrPort(g.Proxy)
	return err
}

// program is tapgw beside us, as in a build, or where it is installed.
func program() string {
	const name = "tapgw"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	if beside := filepath.Join(filepath.Dir(self), name); isFile(beside) {
		return beside
	}
	return name
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// browser is one with a profile of its own that uses the proxy.
func browser(ctx context.Context, profile string, g portal.Gate) (*exec.Cmd, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "brave-browser"} {
		if path, err := exec.LookPath(name); err == nil {
			return exec.CommandContext(ctx, path, "--user-data-dir="+profile, "--no-first-run", "--proxy-server=http://"+g.Proxy, g.URL), nil
		}
	}
	for _, name := range []string{"firefox", "firefox-esr"} {
		if path, err := exec.LookPath(name); err == nil {
			return exec.CommandContext(ctx, path, "--no-remote", "--profile", profile, g.URL), useProxy(profile, g.Proxy)
		}
	}
	return nil, errors.New("found neither Chromium nor Firefox; run \"tapgw portal\" in a terminal")
}

// useProxy writes the settings of a profile of Firefox.
func useProxy(profile, proxy string) error {
	at, err := netip.ParseAddrPort(proxy)
	if err != nil {
		return err
	}
	settings := "user_pref(\"network.proxy.type\", 1);\n"
	for _, kind := range []string{"http", "ssl"} {
		settings += fmt.Sprintf("user_pref(%q, %q);\nuser_pref(%q, %d);\n",
			"network.proxy."+kind, at.Addr(), "network.proxy."+kind+"_port", at.Port())
	}
	return os.WriteFile(filepath.Join(profile, "user.js"), []byte(settings), 0o600)
}

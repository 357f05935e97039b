package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	ftpserver "github.com/fclairamb/ftpserverlib"
	"github.com/spf13/afero"
	"github.com/vishvananda/netlink"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// ftpServer as the first argument makes the test binary an FTP server, in a process of its own because it opens its sockets
// wherever it likes; the second argument is its address.
const ftpServer = "ftp-server"

// serveFTP serves files in memory. A data connection from or to another address than the control connection's is refused.
func serveFTP(at string) error {
	return ftpserver.NewFtpServer(&ftpDriver{at, afero.NewMemMapFs()}).ListenAndServe()
}

type ftpDriver struct {
	at    string
	files afero.Fs
}

func (d *ftpDriver) GetSettings() (*ftpserver.Settings, error) {
	return &ftpserver.Settings{
		ListenAddr: d.at, ConnectionTimeout: 10,
		ActiveConnectionsCheck: ftpserver.IPMatchRequired, PasvConnectionsCheck: ftpserver.IPMatchRequired,
	}, nil
}

func (*ftpDriver) ClientConnected(ftpserver.ClientContext) (string, error) { return "Hello", nil }
func (*ftpDriver) ClientDisconnected(ftpserver.ClientContext)              {}
func (*ftpDriver) GetTLSConfig() (*tls.Config, error)                      { return nil, errors.New("no TLS here") }

func (d *ftpDriver) AuthUser(ftpserver.ClientContext, string, string) (ftpserver.ClientDriver, error) {
	return d.files, nil
}

// startFTP runs an FTP server in the Internet until the test ends.
func startFTP(t testing.TB, w world) {
	t.Helper()
	self, err := os.Executable()
	labtest.Must(t, err)
	at := netip.AddrPortFrom(lab.ServerAddrs[0], 21).String()
	d, err := w.Internet.StartDaemon(func(line string) { t.Log(line) }, self, ftpServer, at)
	labtest.Must(t, err)
	t.Cleanup(func() {
		_ = d.Signal(os.Kill)
		if err := d.AwaitEnd(patience); err != nil {
			t.Error(err)
		}
	})
	callFrom(t, w.Internet, lab.ServerAddrs[0])
	eventually(t, "an FTP server", func() bool {
		conn, err := w.Internet.Dial(t.Context(), "tcp4", at)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// callFrom makes an address the one that connections to the uplinks begin from, as that of a server with one address does.
func callFrom(t testing.TB, ns *lab.Namespace, from netip.Addr) {
	t.Helper()
	routes, err := ns.Handle().RouteList(nil, netlink.FAMILY_V4)
	labtest.Must(t, err)
	for _, r := range routes {
		if r.Gw != nil {
			r.Src = from.AsSlice()
			labtest.Must(t, ns.Handle().RouteReplace(&r))
		}
	}
}

// ftpWay is a way to make a data connection, as options of curl.
type ftpWay struct {
	name    string
	active  bool
	options []string
}

// ftpWays are the ways for a client with an address.
func ftpWays(client netip.Addr) []ftpWay {
	return []ftpWay{
		{"PORT", true, []string{"--ftp-port", client.String(), "--disable-eprt"}},
		{"EPRT", true, []string{"--ftp-port", client.String()}},
		{"PASV", false, []string{"--ftp-pasv", "--disable-epsv"}},
		{"EPSV", false, []string{"--ftp-pasv"}},
	}
}

// curl runs curl in ns against the FTP server, and returns what it says when it fails.
func curl(t testing.TB, ns *lab.Namespace, options ...string) (output string, err error) {
	t.Helper()
	args := append([]string{"--silent", "--show-error", "--max-time", "15", "--connect-timeout", "10"}, options...)
	out, err := ns.Command(labtest.Context(t), "curl", args...).CombinedOutput()
	return string(out), err
}

// ftpURL is that of a file on the server.
func ftpURL(name string) string { return "ftp://" + lab.ServerAddrs[0].String() + "/" + name }

// expectTransfers sends a file of random bytes to the server in each way, and gets it back the same.
func expectTransfers(t testing.TB, ns *lab.Namespace, client netip.Addr, size int) {
	t.Helper()
	dir := t.TempDir()
	sent, got := filepath.Join(dir, "sent"), filepath.Join(dir, "got")
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{})
	for _, way := range ftpWays(client) {
		_, _ = random.Read(content)
		labtest.Must(t, os.WriteFile(sent, content, 0o600))
		name := way.name + "-" + ns.Name()
		if out, err := curl(t, ns, append(way.options, "--upload-file", sent, ftpURL(name))...); err != nil {
			t.Errorf("%s, %s: upload: %v: %s", ns.Name(), way.name, err, out)
			continue
		}
		if out, err := curl(t, ns, append(way.options, "--output", got, ftpURL(name))...); err != nil {
			t.Errorf("%s, %s: download: %v: %s", ns.Name(), way.name, err, out)
			continue
		}
		back, err := os.ReadFile(got)
		labtest.Must(t, err)
		if sha256.Sum256(back) != sha256.Sum256(content) {
			t.Errorf("%s, %s: %d bytes came back as %d others", ns.Name(), way.name, size, len(back))
		}
	}
}

// TestRFC5382_REQ6_OnlyFTPHelper: without any configuration active FTP works, and passive FTP by the uplink of its control
// connection although each new connection takes its turn; without the helper neither does.
func TestRFC5382_REQ6_OnlyFTPHelper(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	startFTP(t, w)
	expectTransfers(t, w.lan, w.Hosts[0].Addr, 200_000)
	expectTransfers(t, w.Gateway, tapAddr, 200_000)
	if n := w.metric(`tapgw_helper_events_total{event="payload_changed"}`); n < 8 {
		t.Errorf("%g commands were changed", n)
	}
	w.use(inTurn + "helpers: {ftp: {enabled: false}}\n")
	for _, way := range ftpWays(w.Hosts[0].Addr) {
		works := 0
		for range 3 {
			if _, err := curl(t, w.lan, append(way.options, "--list-only", ftpURL(""))...); err == nil {
				works++
			}
		}
		if works == 3 || way.active && works > 0 {
			t.Errorf("%s without the helper worked %d times of 3", way.name, works)
		}
	}
}

// TestMW3_FTPDataFollowControl: large transfers in both directions and each way have the right bytes, the kernel carries the
// data, and a lossy uplink does no harm to what is changed.
func TestMW3_FTPDataFollowControl(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	startFTP(t, w)
	_, before := w.handed()
	const size = 16 << 20
	expectTransfers(t, w.lan, w.Hosts[0].Addr, size)
	if _, after := w.handed(); w.datapath == api.DatapathKernel && after-before > size/2 {
		t.Errorf("of eight transfers of %d bytes the daemon was handed %d", size, after-before)
	}
	for _, u := range w.Uplinks {
		labtest.Must(t, u.SetFaults(lab.RandomLoss(0.03)))
	}
	expectTransfers(t, w.lan, w.Hosts[0].Addr, 20_000)
}

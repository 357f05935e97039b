package lannames

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var now = time.Unix(1_800_000_000, 0)

// filed is a book over files.
func filed(t *testing.T, files map[string]string) *Book {
	t.Helper()
	b := &Book{root: t.TempDir()}
	for name, text := range files {
		write(t, b, name, text)
	}
	return b
}

func write(t *testing.T, b *Book, name, text string) {
	t.Helper()
	path := filepath.Join(b.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const isc = `# The format of this file is documented in the dhcpd.leases(5) manual page.
lease 192.168.1.30 {
  starts 4 2026/11/19 10:00:00;
  binding state active;
  client-hostname "printer";
}
lease 192.168.1.31 {
  binding state active;
  client-hostname "gone";
}
lease 192.168.1.31 {
  binding state free;
}
server-duid "\000\001";
lease 192.168.1.32 { binding
`

func TestNames(t *testing.T) {
	b := filed(t, map[string]string{
		"etc/hosts": "127.0.0.1 localhost\n192.168.1.2\tnas.home nas # at the back\n192.168.1.2 other\n::1 ip6-localhost\nfd00::2 nas6\n192.168.1.3\n",
		"var/lib/misc/dnsmasq.leases": "1800000100 02:00:00:00:00:01 192.168.1.20 toms-laptop 01:02\n1799999999 02:00:00:00:00:02 192.168.1.21 late *\n" +
			"0 02:00:00:00:00:03 192.168.1.22 always *\n1800000100 02:00:00:00:00:04 192.168.1.23 * *\nduid 00:01:00:01\n1800000100 1234 fd00::20 toms-laptop 00:01\n" +
			"1800000100 02:00:00:00:00:05 192.168.1.2 impostor *\n",
		"var/lib/NetworkManager/dnsmasq-wlan0.leases": "1800000100 02:00:00:00:00:06 10.42.0.7 phone *\n",
		"var/lib/dhcp/dhcpd.leases":                   isc,
	})
	for address, want := range map[string]string{
		"192.168.1.2": "nas.home", "fd00::2": "nas6", "127.0.0.1": "", "::1": "", "192.168.1.3": "", "192.168.1.20": "toms-laptop",
		"192.168.1.21": "", "192.168.1.22": "always", "192.168.1.23": "", "fd00::20": "toms-laptop", "10.42.0.7": "phone",
		"192.168.1.30": "printer", "192.168.1.31": "", "192.168.1.32": "",
	} {
		if got := b.Name(netip.MustParseAddr(address), now); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// TestNamesFollowTheFiles: what changes is found a little later, not at each question.
func TestNamesFollowTheFiles(t *testing.T) {
	b := filed(t, nil)
	a := netip.MustParseAddr("192.168.1.2")
	if got := b.Name(a, now); got != "" {
		t.Errorf("without a file it is %q", got)
	}
	write(t, b, "etc/hosts", "192.168.1.2 nas\n")
	if got := b.Name(a, now.Add(every-1)); got != "" {
		t.Errorf("read again at once: %q", got)
	}
	if got := b.Name(a, now.Add(every)); got != "nas" {
		t.Errorf("later it is %q", got)
	}
}

// TestHostileNames: a lease's name is its client's choice, and its number is without end.
func TestHostileNames(t *testing.T) {
	var b strings.Builder
	for i := range maxNames + 100 {
		fmt.Fprintf(&b, "0 02:00:00:00:00:01 10.0.%d.%d host%d *\n", i/256, i%256, i)
	}
	many := filed(t, map[string]string{"var/lib/misc/dnsmasq.leases": b.String()})
	if n := len(many.look(now)); n != maxNames {
		t.Errorf("%d names", n)
	}
	evil := []string{"<script>", "a\x1b[2J", "..", "a..b", "-x", "1.2.3.4", "é", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a", `a"b`}
	for _, name := range evil {
		if isName(name) {
			t.Errorf("%q is a name", name)
		}
	}
	long := strings.Repeat("# nothing\n", maxFile/10) + "192.168.1.2 nas\n"
	if got := filed(t, map[string]string{"etc/hosts": long}).Name(netip.MustParseAddr("192.168.1.2"), now); got != "nas" {
		t.Errorf("at the end of a long file: %q", got)
	}
}

// TestPipesAreNoFiles: what a DHCP server may put in place of its file holds nobody up.
func TestPipesAreNoFiles(t *testing.T) {
	b := filed(t, map[string]string{"etc/hosts": "192.168.1.2 nas\n", "var/lib/misc/x": ""})
	if err := syscall.Mkfifo(filepath.Join(b.root, "var/lib/misc/dnsmasq.leases"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := b.Name(netip.MustParseAddr("192.168.1.2"), now); got != "nas" {
		t.Errorf("it is %q", got)
	}
}

// FuzzParse: whatever the files hold, what comes out are names of hosts.
func FuzzParse(f *testing.F) {
	f.Add([]byte(isc))
	f.Add([]byte("0 02:00:00:00:00:01 10.0.0.1 host *\n10.0.0.1 host\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range sources {
			s.parse(data, now, func(a netip.Addr, name string) {
				if !a.IsValid() || !isName(name) {
					t.Errorf("%v is %q", a, name)
				}
			})
		}
	})
}

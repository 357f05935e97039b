package resolvers

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func list(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func TestParseKeys(t *testing.T) {
	for text, want := range map[string][]netip.Addr{
		"ADMIN_STATE=configured\nDNS=192.0.2.53 2001:db8::53\nNTP=192.0.2.9\n":                   list("192.0.2.53", "2001:db8::53"),
		"DNS=192.0.2.53:5353#dns.example [2001:db8::53]:853#dns.example 192.0.2.54%2 192.0.2.53": list("192.0.2.53", "2001:db8::53", "192.0.2.54"),
		"XDNS=192.0.2.53\nDNS=\nDNS=dns.example\nDNS":                                            nil,
		"": nil,
	} {
		if got := parseKeys(text, "DNS"); !slices.Equal(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	const text = "# by dhclient\nsearch lan\nnameserver 192.0.2.53\n nameserver\t2001:db8::53 # comment\nnameserver dns.example\nnameserver\n"
	if got := parseResolvConf(text); !slices.Equal(got, list("192.0.2.53", "2001:db8::53")) {
		t.Errorf("%s", got)
	}
}

// TestParseLeases: of several leases of an interface the last counts, and one that was not written to the end not at all.
func TestParseLeases(t *testing.T) {
	const text = `default-duid "\000\001";
lease {
  interface "eth0";
  fixed-address 192.0.2.7;
  option domain-name-servers 192.0.2.1,192.0.2.2;
}
lease {
  interface "eth1";
  option domain-name-servers 198.51.100.1;
}
lease {
  interface "eth0";
  option domain-name-servers 192.0.2.53, 192.0.2.54;
}
lease6 {
  interface "eth2";
  option dhcp6.name-servers 2001:db8::53;
}
lease {
  interface "eth1";
  option domain-name-servers 198.51.100.9;
`
	want := map[string][]netip.Addr{"eth0": list("192.0.2.53", "192.0.2.54"), "eth1": list("198.51.100.1"), "eth2": list("2001:db8::53")}
	if got := parseLeases(text); !maps.EqualFunc(got, want, slices.Equal[[]netip.Addr]) {
		t.Errorf("%v", got)
	}
}

// TestRead: whoever manages a link now is asked first, files are read again after a second, and numbers of links say nothing in
// another namespace.
func TestRead(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("run/systemd/netif/links/2", "DNS=192.0.2.2\n")
	write("run/systemd/netif/leases/2", "DNS=192.0.2.99\n")
	write("run/systemd/netif/leases/3", "ADDRESS=192.0.2.7\nDNS=192.0.2.3\n")
	write("run/systemd/resolve/netif/4", "SERVERS=192.0.2.4#dns.example\n")
	write("run/resolvconf/interface/ppp0.pppd", "nameserver 192.0.2.5\n")
	write("run/resolvconf/interfaces/ppp01", "nameserver 192.0.2.98\n")
	write("var/lib/dhcp/dhclient.eth6.leases", "lease {\n interface \"eth6\";\n option domain-name-servers 192.0.2.6;\n}\n")
	links := map[int]string{2: "eth2", 3: "eth3", 4: "eth4", 5: "ppp0", 6: "eth6", 7: "eth7"}
	want := map[int][]netip.Addr{
		2: list("192.0.2.2"), 3: list("192.0.2.3"), 4: list("192.0.2.4"), 5: list("192.0.2.5"), 6: list("192.0.2.6"),
	}
	expect := func(r *Reader, now time.Time, want map[int][]netip.Addr) {
		t.Helper()
		if got := r.Read(links, now); !maps.EqualFunc(got, want, slices.Equal[[]netip.Addr]) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	r, now := &Reader{root: root}, time.Now()
	expect(r, now, want)
	write("run/systemd/netif/links/2", "DNS=192.0.2.22\n")
	expect(r, now.Add(every/2), want)
	want[2] = list("192.0.2.22")
	expect(r, now.Add(every), want)
	delete(want, 2)
	delete(want, 3)
	delete(want, 4)
	expect(&Reader{root: root, foreign: true}, now, want)
	links = map[int]string{}
	expect(r, now.Add(every), map[int][]netip.Addr{})
	if New().Read(nil, now) == nil {
		t.Error("this host has no answer at all")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("DNS=192.0.2.53:53#name [2001:db8::1]:53 fe80::1%2\n")
	f.Add("nameserver 192.0.2.53\nnameserver ::ffff:192.0.2.53\n")
	f.Add("lease {\n interface \"eth0\";\n option domain-name-servers 192.0.2.1,192.0.2.2;\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		lists := [][]netip.Addr{parseKeys(text, "DNS"), parseResolvConf(text)}
		leases := parseLeases(text)
		for _, l := range leases {
			lists = append(lists, l)
		}
		if len(leases) > maxLinks {
			t.Errorf("%d interfaces", len(leases))
		}
		for _, l := range lists {
			if len(l) > maxFound || slices.ContainsFunc(l, func(a netip.Addr) bool { return !a.IsValid() || a.Is4In6() }) {
				t.Errorf("%v", l)
			}
		}
	})
}

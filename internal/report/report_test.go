package report

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestRedact(t *testing.T) {
	r := NewRedactor("study")
	const text = `192.168.7.20 and 192.168.7.33:443 by 192.168.7.0/24; fd12:3456::1, [2001:db8:77::2]:80, fe80::5054:ff:fe12:3456%eth0
02:42:ac:11:00:02 at 12:34:56, 10.1.2.3/16, "url":"http://login.hotel.example/x", study, kernel of study: 6.1.0
tapgw.yaml is not a site, net.ipv4.ip_forward neither, but net.bank.example is, and kasse.md; enx0242ac110002 up\n192.168.7.20 by\t02:42:ac:11:00:02, 127.0.0.1 and ::1 and 255.255.255.255 and 198.18.73.1 are nobody's, ff02::1 is everybody's
*expr.Cmp{"Op":0,"Register":1,"Data":"CgAAAg=="} nft element 2 t s key c0a80714 end  value `
	got := string(r.Redact([]byte(text)))
	for _, secret := range []string{
		"192.168.7.", "fd12:3456", "2001:db8:77", "5054:ff", "ac:11:00:02", "10.1.2.3", "hotel", "study", "CgAAAg", "c0a80714",
		"bank", "kasse", "110002",
	} {
		if strings.Contains(got, secret) {
			t.Errorf("%s is still there:\n%s", secret, got)
		}
	}
	for _, stays := range []string{
		"192.168.", ":443", "0/24", "%eth0", "02:42:ac:", "enx0242ac", "net.ipv4.ip_forward", "12:34:56", "/16", "http://name1.example/x", "6.1.0", "tapgw.yaml", "127.0.0.1",
		" ::1 ", "255.255.255.255", "198.18.73.1", "ff02::1", "this-host",
	} {
		if !strings.Contains(got, stays) {
			t.Errorf("%s is gone:\n%s", stays, got)
		}
	}
	if again := string(r.Redact([]byte(text))); again != got {
		t.Errorf("not the same twice:\n%s\n%s", got, again)
	}
	if other := string(NewRedactor("study").Redact([]byte(text))); other == got {
		t.Error("two reports replace by the same")
	}
}

// TestSubnetsStay: what has a prefix in common has as long a one afterwards.
func TestSubnetsStay(t *testing.T) {
	r := NewRedactor("")
	list := []string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "10.200.0.1", "203.0.113.9", "203.0.113.10", "9.9.9.9", "2001:db8::1", "2001:db8::2", "2001:db8:1::1", "fd00::1"}
	for _, a := range list {
		for _, b := range list {
			a, b := netip.MustParseAddr(a), netip.MustParseAddr(b)
			if before, after := common(a, b), common(r.address(a), r.address(b)); before != after {
				t.Errorf("%s and %s have %d bits in common, then %d", a, b, before, after)
			}
		}
	}
}

// common is how many leading bits two addresses share.
func common(a, b netip.Addr) int {
	if a.BitLen() != b.BitLen() {
		return -1
	}
	n := 0
	for n < a.BitLen() {
		p, _ := a.Prefix(n + 1)
		if !p.Contains(b) {
			break
		}
		n++
	}
	return n
}

func TestSecrets(t *testing.T) {
	for text, want := range map[string]string{
		`password: hunter2`:                    `password: "removed"`,
		`{token: abc, name: x}`:                `{token: "removed", name: x}`,
		`"api_key": "a\"b", "x": 1`:            `"api_key": "removed", "x": 1`,
		`http://me:pw@host/p`:                  `http://host/p`,
		`http://host/login?mac=02:00&ip=1 end`: `http://host/login?removed end`,
		`token_file: /etc/tapgw/t`:             `token_file: /etc/tapgw/t`,
		`monkey: banana`:                       `monkey: banana`,
	} {
		if got := string(Secrets([]byte(text))); got != want {
			t.Errorf("%s became %s, not %s", text, got, want)
		}
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(1_800_000_000, 0)
	err := Write(&b, []Part{
		{Name: "a.txt", Read: func() ([]byte, error) { return []byte("here"), nil }},
		{Name: "b.txt", Read: func() ([]byte, error) { return []byte("half\n"), errors.New("gone") }},
	}, now, bytes.ToUpper)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(zip)
	for _, want := range [][2]string{{"tapgw-report/a.txt", "HERE"}, {"tapgw-report/b.txt", "HALF\nCOULD NOT BE READ: GONE\n"}} {
		header, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil || header.Name != want[0] || string(text) != want[1] || header.Mode != fileMode || !header.ModTime.Equal(now) {
			t.Errorf("%s: %q, %v", header.Name, text, err)
		}
	}
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("more files: %v", err)
	}
}

// FuzzRedact: no address stays, whatever is around it.
func FuzzRedact(f *testing.F) {
	f.Add("from 192.168.1.2:80 to 2001:db8::1 ")
	f.Add("fe80::1%eth0:: 1.2.3.4/99 ::ffff:10.0.0.1\n")
	f.Fuzz(func(t *testing.T, around string) {
		const secret = "192.0.2.77"
		got := NewRedactor("host").Redact(Secrets([]byte(around + " " + secret + " " + around)))
		if bytes.Contains(got, []byte(secret)) && !strings.Contains(around, "2.77") {
			t.Errorf("%q became %q", around, got)
		}
	})
}

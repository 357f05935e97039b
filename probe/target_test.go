package probe

import (
	"errors"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]string{
		"icmp://1.1.1.1":      "icmp://1.1.1.1",
		"9.9.9.9":             "icmp://9.9.9.9",
		"tcp://192.0.2.1:443": "tcp://192.0.2.1:443",
		"arp://gateway":       "arp://gateway",

		"icmp://2606:4700::1111":     "icmp://2606:4700::1111",
		"[2606:4700::1111]":          "icmp://2606:4700::1111",
		"tcp://[2620:fe::fe]:443":    "tcp://[2620:fe::fe]:443",
		"icmp://[2001:4860:4860::8]": "icmp://2001:4860:4860::8",
	} {
		got, err := ParseTarget(in)
		if err != nil || got.String() != want {
			t.Errorf("ParseTarget(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
}

func TestParseTargetRefuses(t *testing.T) {
	for _, in := range []string{
		"", "://", "icmp://", "icmp://one.one.one.one", "icmp://1.1.1.1:80", "icmp://fe80::1", "[2606:4700::1111", "2606:4700::1111]", "[1.1.1.1]", "2001:db8::1%eth0", "tcp://[2620:fe::fe]", "tcp://2620:fe::fe:443", "::1", "ff02::1", "127.0.0.1",
		"0.0.0.0", "224.0.0.1", "255.255.255.255", "tcp://1.1.1.1", "tcp://1.1.1.1:", "tcp://1.1.1.1:0", "tcp://1.1.1.1:65536",
		"tcp://1.1.1.1:-1", "tcp://[::1]:80", "arp://", "arp://192.0.2.1", "udp://1.1.1.1:53", "ICMP://1.1.1.1", "icmp://::ffff:1.1.1.1",
		" 1.1.1.1", "1.1.1.1 ", "tcp://1.1.1.1:80:90",
	} {
		if got, err := ParseTarget(in); !errors.Is(err, ErrTarget) {
			t.Errorf("ParseTarget(%q) = %v, %v; want ErrTarget", in, got, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"icmp://1.1.1.1", "tcp://192.0.2.1:443", "arp://gateway", "8.8.8.8", "tcp://:", "icmp://::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, err := ParseTarget(s)
		if err != nil {
			if !errors.Is(err, ErrTarget) || first != (Target{}) {
				t.Fatalf("%q: %v with %v", s, err, first)
			}
			return
		}
		if again, err := ParseTarget(first.String()); err != nil || again != first {
			t.Fatalf("%q is %v, written %q, read again %v, %v", s, first, first, again, err)
		}
	})
}

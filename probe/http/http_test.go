package http

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"tapgw/probe"
)

var page = &url.URL{Scheme: "http", Host: "example.org", Path: "/generate_204"}

func TestPages(t *testing.T) {
	for name, c := range map[string]struct {
		expect string
		answer answer
		portal string
		err    string
	}{
		"right":         {"204", answer{204, "", ""}, "", ""},
		"text":          {"success", answer{200, "", "success\n"}, "", ""},
		"other text":    {"success", answer{200, "", "welcome"}, "http://example.org/generate_204", "another page came instead"},
		"login":         {"204", answer{200, "", "<form>"}, "http://example.org/generate_204", "another page came instead"},
		"redirected":    {"204", answer{302, "https://wifi.example/?u=1#top", ""}, "https://wifi.example/?u=1", "redirected to https://wifi.example/?u=1"},
		"511":           {"204", answer{511, "", ""}, "http://example.org/generate_204", "another page came instead"},
		"relative":      {"204", answer{302, "/other", ""}, "", "redirected to http://example.org/other"},
		"to TLS":        {"204", answer{301, "https://Example.org/generate_204", ""}, "", "redirected to https://Example.org/generate_204"},
		"to nowhere":    {"204", answer{302, "", ""}, "", "a redirection to nowhere"},
		"to a program":  {"204", answer{302, "javascript:alert(1)", ""}, "", "a redirection to nowhere"},
		"out of order":  {"204", answer{503, "", ""}, "", "HTTP status 503"},
		"with a secret": {"204", answer{302, "http://me:secret@a.example/", ""}, "http://a.example/", "redirected to http://a.example/"},
	} {
		t.Run(name, func(t *testing.T) {
			err, wrong := judge(page, c.expect, c.answer), (*probe.WrongError)(nil)
			portal, text := "", ""
			if errors.As(err, &wrong) {
				portal = wrong.Portal
			}
			if err != nil {
				text = err.Error()
			}
			if portal != c.portal || text != c.err {
				t.Errorf("got %q, portal %q", text, portal)
			}
		})
	}
}

// FuzzJudge: the address of a portal can be shown and opened, whatever was sent.
func FuzzJudge(f *testing.F) {
	f.Add("204", 302, "http://10.0.0.1/\x1b[31m", "")
	f.Add("ok", 200, "", "ok")
	f.Fuzz(func(t *testing.T, expect string, status int, location, body string) {
		wrong := (*probe.WrongError)(nil)
		if !errors.As(judge(page, expect, answer{status, location, body}), &wrong) {
			return
		}
		u, err := url.Parse(wrong.Portal)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(wrong.Portal) > maxURL {
			t.Fatalf("portal %q: %v", wrong.Portal, err)
		}
		if strings.ContainsFunc(wrong.Portal, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("portal %q", wrong.Portal)
		}
	})
}

package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	link    = regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
)

// pages are the documents for people, by path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "bench/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(files), err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			page, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			texts[page] = fenced.ReplaceAllString(string(data), "")
		}
	}
	return texts
}

// anchors are the names by which headings are linked to, made as GitHub makes them.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		found[strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case unicode.IsLetter(c), unicode.IsDigit(c), c == '-', c == '_':
				return unicode.ToLower(c)
			}
			return -1
		}, strings.TrimSpace(m[1]))] = true
	}
	return found
}

// TestLinks: what a page links to is there, and every page of docs/ is linked to.
func TestLinks(t *testing.T) {
	texts := pages(t)
	reached := map[string]bool{}
	for page, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
				reached[target] = true
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
			if m[2] != "" && !anchors(texts[target])[m[2]] {
				t.Errorf("%s links to a heading %q of %s, which is not there", page, m[2], target)
			}
		}
	}
	for page := range texts {
		if strings.HasPrefix(page, "docs/") && !reached[page] {
			t.Errorf("no page links to %s", page)
		}
	}
}

package web

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

// maxSize is what all files may have together.
const maxSize = 300_000

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fs.ReadFile(Static(), name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestVendoredFilesAreUnchanged also finds files that nobody has written the checksum of.
func TestVendoredFilesAreUnchanged(t *testing.T) {
	known := map[string]bool{"README.md": true, "SHA256SUMS": true}
	for lines := bufio.NewScanner(bytes.NewReader(read(t, "vendor/SHA256SUMS"))); lines.Scan(); {
		want, name, _ := strings.Cut(lines.Text(), "  ")
		sum := sha256.Sum256(read(t, "vendor/"+name))
		if known[name] = true; hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not the file whose checksum was written down", name)
		}
	}
	files, err := fs.ReadDir(Static(), "vendor")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("%s has no checksum", f.Name())
		}
	}
}

var (
	elsewhere = regexp.MustCompile(`(src|href|from|import|url|fetch)\s*[=(]?\s*["'(]?(https?:)?//`)
	inline    = regexp.MustCompile(`(?i)<script>|<style|\son[a-z]+\s*=\s*"|\sstyle="|innerHTML`)
)

// TestPageIsWholeAndPlain: nothing is loaded from elsewhere, nothing is inline, and it is small.
func TestPageIsWholeAndPlain(t *testing.T) {
	total := 0
	err := fs.WalkDir(Static(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data := read(t, name)
		total += len(data)
		if strings.HasPrefix(name, "vendor/") || path.Ext(name) == ".svg" {
			return nil
		}
		for _, banned := range []*regexp.Regexp{elsewhere, inline} {
			if found := banned.Find(data); found != nil {
				t.Errorf("%s contains %q", name, found)
			}
		}
		return nil
	})
	if err != nil || total > maxSize {
		t.Errorf("%d bytes, want at most %d; %v", total, maxSize, err)
	}
}

var reference = regexp.MustCompile(`(?:src|href)="([^"]+)"|from '\./([^']+)'`)

// TestReferencesExist: a file that is missing would show only in a browser.
func TestReferencesExist(t *testing.T) {
	for _, name := range []string{"index.html", "sign-in.html", "app.js", "actions.js", "parts.js", "live.js", "uplinks.js", "throughput.js", "chart.js", "series.js", "sessions.js", "pins.js"} {
		for _, m := range reference.FindAllSubmatch(read(t, name), -1) {
			read(t, string(m[1])+string(m[2]))
		}
	}
}

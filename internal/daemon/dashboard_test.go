package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/internal/lab/labtest"
)

// TestTokenFile: a token that others may know, or guess, is none.
func TestTokenFile(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		mode fs.FileMode
		want string // of the token, or in the error
	}{
		"good":        {" 0123456789abcdef\n", 0o600, "0123456789abcdef"},
		"short":       {"0123456789abcde\n", 0o600, "fewer than 16 characters"},
		"for a group": {"0123456789abcdef\n", 0o640, "chmod 600"},
		"for all":     {"0123456789abcdef\n", 0o604, "chmod 600"},
	} {
		path := filepath.Join(t.TempDir(), "token")
		labtest.Must(t, os.WriteFile(path, []byte(test.text), test.mode))
		token, err := readToken(path)
		if err == nil && token != test.want || err != nil && (token != "" || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: token %q, %v", name, token, err)
		}
	}
	if token, err := readToken(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Errorf("without a file the token is %q", token)
	}
}

package tail

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOf: of a file that is too long the last whole lines are read, and of what is no file nothing.
func TestOf(t *testing.T) {
	folder := t.TempDir()
	file, pipe := filepath.Join(folder, "file"), filepath.Join(folder, "pipe")
	if err := os.WriteFile(file, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		most int64
		want string
	}{
		{file, 100, "one\ntwo\nthree\n"},
		{file, 14, "one\ntwo\nthree\n"},
		{file, 12, "two\nthree\n"},
		{file, 5, ""}, // of which no line is whole
		{folder, 100, ""},
		{pipe, 100, ""},
		{filepath.Join(folder, "none"), 100, ""},
	} {
		if got := string(Of(c.path, c.most)); got != c.want {
			t.Errorf("%s, %d bytes: %q, want %q", filepath.Base(c.path), c.most, got, c.want)
		}
	}
}

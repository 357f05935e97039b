package hostconf

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestStateDir(t *testing.T) {
	for _, tt := range [][3]string{
		{"", "/run/tapgw/tapgw.sock", "/var/lib/tapgw"},
		{"", "/var/run/office/tapgw.sock", "/var/lib/office"},
		{"", "/run/tapgw.sock", "/var/lib/tapgw"},
		{"", "/srv/gw/tapgw.sock", "/srv/gw"},
		{"", "/running/tapgw.sock", "/running"},
		{"/var/lib/private/tapgw:/x", "/run/tapgw/tapgw.sock", "/var/lib/private/tapgw"},
		{"relative", "/srv/gw/tapgw.sock", "/srv/gw"},
	} {
		if got := StateDir(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%q, %q: %s, want %s", tt[0], tt[1], got, tt[2])
		}
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "state.json")
	if _, err := ReadState(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	for _, text := range []string{"one", "two"} {
		if err := WriteState(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if data, err := ReadState(path); err != nil || string(data) != text {
			t.Errorf("%q, %v", data, err)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("left %v, %v", files, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadState(path); err == nil {
		t.Error("read a file that everybody may write")
	}
}

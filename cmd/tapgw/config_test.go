package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigCheckAndShow(t *testing.T) {
	w := newWorld("", "config", "check")
	w.CheckConfig = func(string) (bool, []string, error) { return true, []string{"odd \x1b"}, nil }
	if code := w.run(); code != 0 || w.out.String() != "/etc/tapgw/tapgw.yaml: ok\n" || w.err.String() != "warning: odd ?\n" {
		t.Errorf("%d: %q %q", code, w.out.String(), w.err.String())
	}
	w = newWorld("", "config", "check")
	w.CheckConfig = func(string) (bool, []string, error) { return false, nil, nil }
	if code := w.run(); code != 0 || !strings.Contains(w.out.String(), "the defaults count") {
		t.Errorf("without a file: %d: %q", code, w.out.String())
	}
	w = newWorld("", "config", "check", "--config", "/x")
	w.CheckConfig = func(path string) (bool, []string, error) {
		return false, nil, errors.New(path + ": line 3: unknown key")
	}
	if code := w.run(); code != exitFailure {
		t.Errorf("exit status %d", code)
	}
	checkErrorLine(t, &w.err, "/x: line 3")
	w = newWorld("", "config", "show")
	w.ShowConfig = func(string) ([]byte, error) { return []byte("tap:\n  name: a\x1b\n"), nil }
	if code := w.run(); code != 0 || w.out.String() != "tap:\n  name: a?\n" {
		t.Errorf("%d: %q", code, w.out.String())
	}
}

func TestConfigInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "tapgw.yaml")
	initialise := func(args ...string) (*world, int) {
		w := newWorld("", append([]string{"config", "init", "--config", path}, args...)...)
		w.InitConfig = func(context.Context) ([]byte, error) { return []byte("# begin\n"), nil }
		return w, w.run()
	}
	if w, code := initialise(); code != 0 || !strings.Contains(w.out.String(), "config check --config "+path+"\n") {
		t.Fatalf("%d: %s%s", code, w.out.String(), w.err.String())
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "# begin\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.WriteFile(path, []byte("mine, and longer than theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, code := initialise()
	if text, _ := os.ReadFile(path); code != exitFailure || !strings.HasPrefix(string(text), "mine") {
		t.Errorf("%d: overwritten: %q", code, text)
	}
	checkErrorLine(t, &w.err, "--force")
	_, code = initialise("--force")
	if text, _ := os.ReadFile(path); code != 0 || string(text) != "# begin\n" {
		t.Errorf("%d: not overwritten: %q", code, text)
	}
	path = filepath.Join(path, "below")
	w, _ = initialise()
	checkErrorLine(t, &w.err, "--config")
}

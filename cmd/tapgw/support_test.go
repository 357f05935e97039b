package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tapgw/api"
	"tapgw/internal/doctor"
	"tapgw/internal/golden"
)

// examines gives a world findings of these levels.
func examines(w *world, levels ...doctor.Level) {
	w.Examine = func(context.Context, doctor.Options, string) (list []doctor.Finding, err error) {
		for _, level := range levels {
			f := doctor.Finding{Check: "default-route", Level: level, Message: "the default route by wan1 (metric 0) leaves no room before it, and that is long"}
			if level != doctor.OK {
				f.Advice = "give it a metric of 100 or more where it is configured \x1b[31m"
			}
			list = append(list, f)
		}
		return list, nil
	}
}

func TestDoctor(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   string
		levels []doctor.Level
		code   int
	}{
		{"doctor-well", "doctor", []doctor.Level{doctor.OK}, 0},
		{"doctor", "doctor", []doctor.Level{doctor.OK, doctor.Unknown, doctor.Warn}, 1},
		{"doctor-fails", "doctor", []doctor.Level{doctor.Warn, doctor.Fail}, 2},
		{"doctor.json", "doctor --json", []doctor.Level{doctor.OK, doctor.Warn}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld("", strings.Fields(c.args)...)
			examines(w, c.levels...)
			if code := w.run(); code != c.code || w.err.Len() > 0 {
				t.Errorf("exit status %d: %s", code, w.err.String())
			}
			golden.Text(t, filepath.Join("testdata", c.name), w.out.String())
			if strings.HasSuffix(c.name, ".json") {
				checkJSON(t, w.out.String())
			} else {
				checkPlain(t, w.out.String())
			}
		})
	}
	w := newWorld("", "doctor")
	w.Examine = func(context.Context, doctor.Options, string) ([]doctor.Finding, error) {
		return nil, errors.New("no netlink")
	}
	if code := w.run(); code != exitFailure {
		t.Errorf("exit status %d", code)
	}
}

// unpacked is what a report contains.
func unpacked(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(header.Name)] = string(text)
	}
}

func TestReport(t *testing.T) {
	d := healthy()
	d.YAML = "api:\n  token: hunter2\n"
	d.State.Uplinks[0].PortalURL = "http://login.hotel.example/?guest=4711"
	d.Past = []api.Event{{ID: 7, Kind: api.EventState, Uplink: "fiber", To: api.StateDown, Message: "no reply from 203.0.113.1, token=hunter2"}}
	path := filepath.Join(t.TempDir(), "r.tar.gz")
	w := newWorld(serve(t, d), "report", "-o", path)
	examines(w, doctor.Warn)
	w.KernelState = func() ([]byte, error) { return []byte("route default via 192.168.8.1\n"), errors.New("not all") }
	if code := w.run(); code != 0 {
		t.Fatalf("exit status %d: %s", code, w.err.String())
	}
	said := strings.ReplaceAll(w.out.String(), path, "FILE")
	golden.Text(t, "testdata/report", said)
	checkPlain(t, said)
	files := unpacked(t, path)
	for name, says := range map[string]string{
		"about.txt": "tapgw 1.2.3\ndaemon 1.2.3\n", "status.json": `"fiber"`, "config.yaml": `token: "removed"`, "sessions.json": "192.168.1.20:40000",
		"usage.json": `"fiber"`, "events.jsonl": `"no reply from 203.0.113.1`, "doctor.json": "wan1", "kernel.txt": "192.168.8.1\ncould not be read: not all",
	} {
		if !strings.Contains(files[name], says) {
			t.Errorf("%s: %s", name, files[name])
		}
		if strings.Contains(files[name], "hunter2") || strings.Contains(files[name], "4711") {
			t.Errorf("%s has a secret: %s", name, files[name])
		}
	}
	if past, now := strings.Index(files["events.jsonl"], `"id":7`), strings.Index(files["events.jsonl"], `"snapshot"`); past != 1 || now < past {
		t.Errorf("not what was before what is: %s", files["events.jsonl"])
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != reportMode {
		t.Errorf("%v, %v", info, err)
	}
	again := newWorld("", "report", "-o", path)
	if code := again.run(); code != exitFailure {
		t.Errorf("overwritten: %d", code)
	}
	checkErrorLine(t, &again.err, "exists", "--output")
}

// TestReportRedacted: without a daemon too, and no address of a client or an uplink is left.
func TestReportRedacted(t *testing.T) {
	for name, d := range map[string]*fakeDaemon{"healthy": healthy(), "hostile": hostile(), "none": nil} {
		path := filepath.Join(t.TempDir(), name)
		socket := "/nonexistent/s"
		if d != nil {
			d.Table[0].Host = "toms-laptop"
			d.Past = []api.Event{{Kind: "some", Uplink: "fiber", Message: "192.168.1.20 goes to www.example.com by 2001:db8:77::2"}}
			socket = serve(t, d)
		}
		w := newWorld(socket, "report", "-o", path, "--redact")
		examines(w, doctor.OK)
		w.ShowConfig = func(string) ([]byte, error) { return []byte("names: [example.com]\nto: 192.168.1.0/24"), nil }
		w.KernelState = func() ([]byte, error) { return []byte("route default via 192.168.8.1\n"), nil }
		if code := w.run(); code != 0 {
			t.Fatalf("exit status %d: %s", code, w.err.String())
		}
		for file, text := range unpacked(t, path) {
			if file == "events.jsonl" && d != nil && !strings.Contains(text, `"kind":"some"`) {
				t.Errorf("%s has no past: %s", name, text)
			}
			for _, secret := range []string{"192.168.1.", "192.168.8.", "203.0.113.7", "2001:db8:77", "example.com", "toms-laptop"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s of %s contains %s:\n%s", file, name, secret, text)
				}
			}
		}
	}
}

// offered are the words that a shell gets for the last of these arguments.
func offered(t *testing.T, socket string, args ...string) []string {
	t.Helper()
	w := newWorld(socket, append([]string{"__complete"}, args...)...)
	if code := w.run(); code != 0 {
		t.Errorf("%v: exit status %d: %s", args, code, w.err.String())
	}
	words := strings.Split(w.out.String(), "\n")
	return words[:slices.IndexFunc(words, func(word string) bool { return strings.HasPrefix(word, ":") })]
}

func TestCompletionKnowsTheUplinks(t *testing.T) {
	d := healthy()
	evil := d.State.Uplinks[1]
	for _, name := range []string{"$(reboot)", "-x", "a b", "x\x1b[2J", ""} {
		evil.Name = name
		d.State.Uplinks = append(d.State.Uplinks, evil)
	}
	socket := serve(t, d)
	for _, args := range []string{
		"uplink enable", "uplink disable", "uplink prefer", "uplink metered", "pin self", "pin self example.com", "portal", "probe", "usage", "sessions --uplink", "capture --uplink", "exec --via", "wait --for",
	} {
		got := offered(t, socket, append(strings.Fields(args), "")...)
		if !slices.Equal(got, []string{"fiber", "wifi"}) {
			t.Errorf("%s: %q", args, got)
		}
		if got := offered(t, "/nonexistent/s", append(strings.Fields(args), "")...); len(got) > 0 {
			t.Errorf("%s without a daemon: %q", args, got)
		}
	}
	if got := offered(t, socket, "uplink", "enable", "fiber", ""); len(got) > 0 {
		t.Errorf("a second uplink: %q", got)
	}
}

func TestCompletionForShells(t *testing.T) {
	for _, shell := range shells {
		w := newWorld("", "completion", shell)
		if code := w.run(); code != 0 || !strings.Contains(w.out.String(), "__complete") {
			t.Errorf("%s: %d: %s", shell, code, w.err.String())
		}
	}
	w := newWorld("", "help")
	if w.run(); !strings.Contains(w.out.String(), "completion") || strings.Contains(w.out.String(), "\n  man") {
		t.Error(w.out.String())
	}
}

func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	t.Setenv("SOURCE_DATE_EPOCH", "1800000000")
	w := newWorld("", "man", dir)
	if code := w.run(); code != 0 {
		t.Fatalf("%d: %s", code, w.err.String())
	}
	for page, title := range map[string]string{
		"tapgw.8": `.TH "TAPGW" "8" "Jan 2027" "tapgw 1.2.3" "tapgw"`, "tapgw-uplink-disable.8": `.TH "TAPGW-UPLINK-DISABLE" "8"`, "tapgw-doctor.8": "Exit status",
	} {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.Contains(strings.ReplaceAll(string(text), `\-`, "-"), title) {
			t.Errorf("%s: %v\n%s", page, err, text)
		}
	}
	lintPages(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "tapgw-man.8")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the hidden command has a page")
	}
}

// lintPages has groff complain, where there is one.
func lintPages(t *testing.T, dir string) {
	t.Helper()
	groff, err := exec.LookPath("groff")
	if err != nil {
		return
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.8"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	if out, err := exec.Command(groff, append([]string{"-man", "-Tutf8", "-ww", "-z"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

func TestCaptureIsAskedWell(t *testing.T) {
	for args, want := range map[string]string{
		"capture": "--uplink is missing",
		"capture --uplink wifi --session nonsense":    "PROTO:ADDR:PORT",
		"capture --uplink wifi --session tcp:1.2.3.4": "PROTO:ADDR:PORT",
		"capture --uplink wifi --count 0":             "--count",
		"capture --uplink wifi --duration 0s":         "--duration",
	} {
		w := newWorld(serve(t, healthy()), strings.Fields(args)...)
		if code := w.run(); code != exitUsage || !strings.Contains(w.err.String(), want) {
			t.Errorf("%s: %d: %s", args, code, w.err.String())
		}
	}
	w := newWorld(serve(t, healthy()), "capture", "--uplink", "dsl")
	if code := w.run(); code != exitUnknownUplink {
		t.Errorf("%d: %s", code, w.err.String())
	}
	wanted, err := sessionFilter("udp:192.168.1.20:40000")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range healthy().Table {
		if wanted(s) != (i == 0) {
			t.Errorf("%+v", s)
		}
	}
	if far, err := sessionFilter("tcp:198.51.100.80:443"); err != nil || !far(healthy().Table[1]) || far(api.Session{}) {
		t.Errorf("by the server's endpoint: %v", err)
	}
}

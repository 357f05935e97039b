package hostconf

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const goodJournal = `{"version":1,"sysctls":[{"path":"net/ipv4/conf/eth0/rp_filter","old":"1","new":"2"}],"records":{"routes":[{"metric":0}]}}`

var badJournals = map[string]string{
	"empty":           ``,
	"truncated":       goodJournal[:60],
	"binary":          "\x00\x01\x02",
	"list":            `[]`,
	"no version":      `{}`,
	"newer":           `{"version":2}`,
	"older":           `{"version":0}`,
	"unknown field":   `{"version":1,"run":"rm"}`,
	"trailing":        goodJournal + `{}`,
	"escape":          sysctlJournal("net/ipv4/conf/../../../kernel/rp_filter", "1", "2"),
	"escape in name":  sysctlJournal("net/ipv4/conf/../rp_filter", "1", "2"),
	"absolute":        sysctlJournal("/etc/passwd", "1", "2"),
	"other tree":      sysctlJournal("kernel/core_pattern", "1", "2"),
	"global switch":   sysctlJournal("net/ipv4/ip_forward", "0", "1"),
	"all":             sysctlJournal("net/ipv4/conf/all/forwarding", "0", "1"),
	"default":         sysctlJournal("net/ipv4/conf/default/rp_filter", "0", "1"),
	"other setting":   sysctlJournal("net/ipv4/conf/eth0/route_localnet", "1", "0"),
	"deeper":          sysctlJournal("net/ipv4/conf/eth0/x/rp_filter", "1", "2"),
	"no name":         sysctlJournal("net/ipv4/conf//rp_filter", "1", "2"),
	"long name":       sysctlJournal("net/ipv4/conf/abcdefghijklmnop/rp_filter", "1", "2"),
	"value":           sysctlJournal("net/ipv4/conf/eth0/rp_filter", "1\n1", "2"),
	"wide value":      sysctlJournal("net/ipv4/conf/eth0/forwarding", "2", "1"),
	"twice":           `{"version":1,"sysctls":[{"path":"net/ipv4/conf/a/rp_filter","old":"1","new":"2"},{"path":"net/ipv4/conf/a/rp_filter","old":"0","new":"2"}]}`,
	"nameless record": `{"version":1,"records":{"":1}}`,
	"long record":     `{"version":1,"records":{"` + strings.Repeat("x", 65) + `":1}}`,
	"many":            `{"version":1,"sysctls":[` + strings.Repeat(`{"path":"","old":"","new":""},`, maxEntries) + `{"path":"","old":"","new":""}]}`,
}

func sysctlJournal(path, old, value string) string {
	return `{"version":1,"sysctls":[{"path":"` + path + `","old":"` + strings.ReplaceAll(old, "\n", `\n`) + `","new":"` + value + `"}]}`
}

func TestBadJournalsAreRefused(t *testing.T) {
	for name, text := range badJournals {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "undo.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); !errors.Is(err, ErrJournal) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want ErrJournal naming the file", err)
			}
		})
	}
}

func TestUntrustedFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("good", goodJournal, 0o600)
	if _, err := Open(good); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	huge := write("huge", goodJournal+strings.Repeat(" ", maxJournal), 0o600)
	for _, path := range []string{dir, link, huge, write("shared", goodJournal, 0o666)} {
		if _, err := Open(path); !errors.Is(err, ErrJournal) {
			t.Errorf("%s: got %v, want ErrJournal", path, err)
		}
	}
}

func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "undo.json")
	g, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"default via 192.0.2.1", "default via 192.0.2.9"}
	if err := g.Put("routes", want); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("journal: %v, %v, want mode 0600", st.Mode(), err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if found, err := again.Get("routes", &got); !found || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v %t %v", got, found, err)
	}
	if found, err := again.Get("nothing", &got); found || err != nil {
		t.Errorf("a record nobody wrote: %t %v", found, err)
	}
	var number int
	if _, err := again.Get("routes", &number); !errors.Is(err, ErrJournal) {
		t.Errorf("a record of another type: %v, want ErrJournal", err)
	}
	if err := again.Put("", 1); err == nil {
		t.Error("a record without a name was accepted")
	}
	if err := again.Put("big", strings.Repeat("x", maxJournal)); err == nil {
		t.Error("a record too large to be read again was accepted")
	}
	if err := again.Put("routes", nil); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(goodJournal))
	for _, text := range badJournals {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := parseJournal(data)
		if err != nil {
			return
		}
		for _, e := range j.Sysctls {
			full := filepath.Join(sysDir, e.Path)
			ok, err := filepath.Match("/proc/sys/net/ipv[46]/conf/*/*", full)
			if !ok || err != nil || full != sysDir+"/"+e.Path {
				t.Fatalf("would touch %s", full)
			}
		}
		text, err := j.render()
		if err != nil {
			return // indenting may exceed the limit
		}
		again, err := parseJournal(text)
		if err != nil || !slices.Equal(again.Sysctls, j.Sysctls) || len(again.Records) != len(j.Records) {
			t.Fatalf("read %+v, wrote %s, read %+v: %v", j, text, again, err)
		}
	})
}

package configs

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReferenceRules parses the examples that the reference has in comments.
func TestReferenceRules(t *testing.T) {
	text := "uplinks: [{name: fiber}, {name: dsl}, {name: lte}]\n"
	for _, key := range []string{groupsKey, rulesKey} {
		text += key + ":\n" + example(key)
	}
	loaded := mustParse(t, text+"sets:\n"+example(setsKey))
	if len(loaded.Warnings) > 0 {
		t.Errorf("%v", loaded.Warnings)
	}
	want := []Group{
		{Name: "work", Uplinks: []Member{{"fiber", InheritTier}, {"dsl", InheritTier}, {"lte", 1}}, Scheduler: "failover", Stickiness: StickySession, WhenDown: "backup"},
		{Name: "backup", Uplinks: []Member{{"lte", InheritTier}}, WhenDown: WhenDownAny},
	}
	if diff := cmp.Diff(want, loaded.Config.Groups); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if r := loaded.Config.Rules; len(r) != 3 || r[0].Times[1] != (Span{1<<0 | 1<<6, 0, minutesOfDay}) || !r[2].Direct || r[0].DSCP[1] != 34 {
		t.Errorf("%+v", r)
	}
	for _, f := range ruleFields {
		if loaded.origins[index(rulesKey, 0)+"."+f.key].line+loaded.origins[index(rulesKey, 1)+"."+f.key].line+loaded.origins[index(rulesKey, 2)+"."+f.key].line == 0 {
			t.Errorf("the reference does not mention %s of rules", f.key)
		}
	}
}

// TestSetFiles: prefixes of both families and comments; what is wrong is told with its line.
func TestSetFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", "# ours\n10.1.0.0/16\n\n 2001:db8::/32 # and this\r\n10.2.0.1")
	load := func(path string) (*Loaded, error) {
		return Load(Options{Path: write("c.yaml", "sets: {ours: [10.3.0.0/16, "+path+"]}\nrules: [{to: ours, use: all}]")})
	}
	loaded, err := load(good)
	if err != nil {
		t.Fatal(err)
	}
	want := Set{
		Name: "ours", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}, Files: []string{good},
		Read: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("10.2.0.1/32")},
	}
	if diff := cmp.Diff([]Set{want}, loaded.Config.Sets, comparers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for path, part := range map[string]string{
		write("bad", "10.1.0.0/16\n10.1.0.1/16\n"): "bad: line 2: 10.1.0.1/16 has bits beyond its length; write 10.1.0.0/16",
		write("text", "hello\n"):                   `line 1: "hello" is not a prefix`,
		filepath.Join(dir, "absent"):               "no such file",
		"/dev/zero":                                "is no file",
		dir:                                        "is no file",
	} {
		_, err := load(path)
		if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), "sets.ours[1]") {
			t.Errorf("%s: %v, want %q", path, err, part)
		}
	}
}

// FuzzPrefixes: a file of prefixes, whatever it holds, is refused or read.
func FuzzPrefixes(f *testing.F) {
	f.Add([]byte("10.1.0.0/16\n2001:db8::/32 # x\n"))
	f.Add([]byte("10.1.0.1/16"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parsePrefixes(data)
		if err == nil && slices.ContainsFunc(list, func(p netip.Prefix) bool { return !p.IsValid() || p != p.Masked() }) {
			t.Fatalf("%q gives %v", data, list)
		}
	})
}

// Package archtest holds the tests that keep the house in order: which package may import which, and why.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Imports    []string
	Name       string
	Doc        string
}

// load lists every package of the module without its tests.
func load(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Name,Doc", "tapgw/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// rule forbids imports: no package matching from may import one matching any of banned.
type rule struct {
	from   string
	banned []string
	why    string
}

var rules = []rule{
	{"tapgw/internal/packet", []string{"tapgw/"}, "reading headers needs nothing of ours"},
	{"tapgw/nat", []string{"tapgw/policy", "tapgw/uplinks", "tapgw/probe", "tapgw/tapgw", "tapgw/configs", "tapgw/api", "tapgw/internal/daemon"},
		"translation knows nothing of how an uplink is chosen; tapgw is where they meet"},
	{"tapgw/policy", []string{"tapgw/nat", "tapgw/uplinks", "tapgw/probe", "tapgw/tapgw", "tapgw/configs", "tapgw/api", "tapgw/internal/daemon"},
		"schedulers will also choose real servers, so they must not know uplinks"},
	{"tapgw/uplinks", []string{"tapgw/nat", "tapgw/policy", "tapgw/probe", "tapgw/tapgw", "tapgw/configs", "tapgw/internal/daemon"},
		"what an uplink is must not depend on what it is used for"},
	{"tapgw/probe", []string{"tapgw/nat", "tapgw/policy", "tapgw/uplinks", "tapgw/tapgw", "tapgw/configs", "tapgw/internal/daemon"},
		"health is judged from answers alone"},
	{"tapgw/tapgw", []string{"tapgw/internal/daemon", "tapgw/configs", "tapgw/probe", "tapgw/api", "tapgw/cmd"},
		"the data plane is wired by the daemon, never the other way round"},
	{"tapgw/api", []string{"tapgw/"}, "clients of the API must not drag the daemon in"},
	{"tapgw/configs", []string{"tapgw/"}, "the file is translated by the daemon, so that no package depends on its form"},
	{"tapgw/internal/daemon", []string{"tapgw/cmd"}, "wiring is used by commands"},
}

// edges may use the kernel; every other package must run without root and without a clock.
var edges = []string{
	"tapgw/tapgw/tapdev", "tapgw/uplinks/rtnl", "tapgw/uplinks/wire", "tapgw/uplinks/nft", "tapgw/probe/icmp", "tapgw/probe/tcp",
	"tapgw/probe/arp", "tapgw/probe/bound", "tapgw/probe/probers", "tapgw/internal/", "tapgw/cmd/", "tapgw/bench", "tapgw/e2e",
}

var kernel = []string{
	"golang.org/x/sys", "github.com/vishvananda/", "github.com/google/nftables", "github.com/cilium/ebpf", "github.com/songgao/water",
	"github.com/mdlayher/netlink", "github.com/mdlayher/packet", "syscall", "os/exec",
}

func matches(path, pattern string) bool {
	return path == pattern || strings.HasPrefix(path, strings.TrimSuffix(pattern, "/")+"/")
}

func TestImportDirection(t *testing.T) {
	for _, p := range load(t) {
		for _, r := range rules {
			if !matches(p.ImportPath, r.from) {
				continue
			}
			for _, imp := range p.Imports {
				if banned(imp, r) {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.why)
				}
			}
		}
	}
}

// banned reports whether the rule forbids imp; a package may always import what lies in its own tree.
func banned(imp string, r rule) bool {
	if matches(imp, r.from) || matches(imp, "tapgw/internal/packet") {
		return false
	}
	return slices.ContainsFunc(r.banned, func(b string) bool { return matches(imp, b) })
}

func TestOnlyEdgesTouchTheKernel(t *testing.T) {
	for _, p := range load(t) {
		if slices.ContainsFunc(edges, func(e string) bool { return matches(p.ImportPath, e) }) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.ContainsFunc(kernel, func(k string) bool { return matches(imp, k) }) {
				t.Errorf("%s imports %s: only the Linux edges may, so that the rest runs and fuzzes without root", p.ImportPath, imp)
			}
		}
	}
}

// TestRequiredLibraries: the project was asked to stand on these five, and dormant ones stay behind one package each.
func TestRequiredLibraries(t *testing.T) {
	users := map[string][]string{
		"github.com/songgao/water":       nil,
		"github.com/google/gopacket":     nil,
		"github.com/vishvananda/netlink": nil,
		"github.com/mdlayher/arp":        nil,
		"github.com/spf13/viper":         nil,
	}
	for _, p := range load(t) {
		for lib := range users {
			if slices.Contains(p.Imports, lib) && !matches(p.ImportPath, "tapgw/internal/lab") {
				users[lib] = append(users[lib], p.ImportPath)
			}
		}
	}
	for lib, by := range users {
		if len(by) == 0 {
			t.Errorf("%s is imported by no package of the program", lib)
		}
	}
	for _, lib := range []string{"github.com/songgao/water", "github.com/google/gopacket"} {
		if len(users[lib]) > 1 {
			t.Errorf("%s is dormant and must stay behind one package, but is imported by %v", lib, users[lib])
		}
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	for _, p := range load(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

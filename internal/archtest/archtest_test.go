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
	Doc        string
}

// load lists every package of the module without its tests.
func load(t *testing.T) []pkg {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Imports,Doc", "tapgw/...")
	list.Stderr = t.Output() // an import cycle is told here
	out, err := list.Output()
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
	{"tapgw/helper", []string{"tapgw/"}, "a helper reads hostile payloads, and reaches the gateway only by what it is given"},
	{"tapgw/names", []string{"tapgw/"}, "names are learned from hostile messages and nothing else"},
	{"tapgw/tapgw", []string{"tapgw/helper/ftp", "tapgw/helper/tftp", "tapgw/helper/irc", "tapgw/helper/pptp", "tapgw/helper/rtsp", "tapgw/helper/sip"}, "the daemon chooses the helpers, the data plane knows what one is"},
	{"tapgw/tapgw", []string{"tapgw/internal/daemon", "tapgw/configs", "tapgw/probe", "tapgw/api", "tapgw/cmd"},
		"the data plane is wired by the daemon, never the other way round"},
	{"tapgw/api", []string{"tapgw/", "github.com/", "golang.org/"}, "clients of the API must drag nothing in"},
	{"tapgw/configs", []string{"tapgw/"}, "the file is translated by the daemon, so that no package depends on its form"},
	{"tapgw/internal/daemon", []string{"tapgw/cmd"}, "wiring is used by commands"},
}

// edges may use the kernel, and what uses it; every other package must run without root.
var edges = []string{
	"tapgw/tapgw/tapdev", "tapgw/tapgw/fastpath", "tapgw/uplinks/rtnl", "tapgw/uplinks/wire", "tapgw/uplinks/nft",
	"tapgw/probe/icmp", "tapgw/probe/tcp", "tapgw/probe/arp", "tapgw/probe/nd", "tapgw/probe/dns", "tapgw/probe/http", "tapgw/probe/bound", "tapgw/probe/probers", "tapgw/internal/apiserver", "tapgw/internal/capture", "tapgw/internal/daemon",
	"tapgw/internal/demo", "tapgw/internal/doctor", "tapgw/internal/hostconf", "tapgw/internal/owner", "tapgw/internal/lab", "tapgw/internal/tray", "tapgw/cmd/tapgw", "tapgw/cmd/tapgw-tray", "tapgw/bench", "tapgw/e2e",
}

var kernel = []string{
	"golang.org/x/sys", "github.com/vishvananda/", "github.com/google/nftables", "github.com/cilium/ebpf", "github.com/songgao/water",
	"github.com/mdlayher/netlink", "github.com/mdlayher/packet", "syscall", "os/exec",
}

func matches(path, pattern string) bool {
	return path == pattern || strings.HasPrefix(path, strings.TrimSuffix(pattern, "/")+"/")
}

func matchesAny(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(path, p) })
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
	return matchesAny(imp, r.banned)
}

func TestOnlyEdgesTouchTheKernel(t *testing.T) {
	all := load(t)
	for _, e := range edges {
		if !slices.ContainsFunc(all, func(p pkg) bool { return p.ImportPath == e }) {
			t.Errorf("the edge %s does not exist", e)
		}
	}
	for _, p := range all {
		if matchesAny(p.ImportPath, edges) {
			continue
		}
		for _, imp := range p.Imports {
			if matchesAny(imp, kernel) || matchesAny(imp, edges) {
				t.Errorf("%s imports %s: only the Linux edges may, so that the rest runs and fuzzes without root", p.ImportPath, imp)
			}
		}
	}
}

// reachable returns the packages of the module that root stands on, and root.
func reachable(all []pkg, root string) []pkg {
	found := []pkg{}
	wanted := []string{root}
	for i := 0; i < len(wanted); i++ {
		at := slices.IndexFunc(all, func(p pkg) bool { return p.ImportPath == wanted[i] })
		if at < 0 {
			continue
		}
		found = append(found, all[at])
		for _, imp := range all[at].Imports {
			if !slices.Contains(wanted, imp) {
				wanted = append(wanted, imp)
			}
		}
	}
	return found
}

// TestRequiredLibraries: the daemon was asked to stand on these five, and dormant ones stay behind one package each.
func TestRequiredLibraries(t *testing.T) {
	users := map[string][]string{
		"github.com/songgao/water":       nil,
		"github.com/google/gopacket":     nil,
		"github.com/vishvananda/netlink": nil,
		"github.com/mdlayher/arp":        nil,
		"github.com/spf13/viper":         nil,
	}
	for _, p := range reachable(load(t), "tapgw/internal/daemon") {
		for lib := range users {
			if slices.ContainsFunc(p.Imports, func(imp string) bool { return matches(imp, lib) }) {
				users[lib] = append(users[lib], p.ImportPath)
			}
		}
	}
	for lib, by := range users {
		if len(by) == 0 {
			t.Errorf("%s is imported by no package of the daemon", lib)
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

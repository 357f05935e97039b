package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"tapgw/internal/lab/labtest"
)

const conffile = "/etc/tapgw/tapgw.yaml"

// next makes a package of a later version, in which the configuration file has another text.
func next(t testing.TB, packager, version string) string {
	t.Helper()
	dir := t.TempDir()
	labtest.Must(t, os.WriteFile(filepath.Join(dir, "tapgw.yaml"), []byte("# version "+version+"\n"), 0o644))
	text, err := os.ReadFile("../packaging/nfpm.yaml")
	labtest.Must(t, err)
	changed := strings.Replace(string(text), "src: packaging/tapgw.yaml", "src: "+dir+"/tapgw.yaml", 1)
	labtest.Must(t, os.WriteFile(filepath.Join(dir, "nfpm.yaml"), []byte(changed), 0o644))
	c := exec.Command("bin/nfpm", "package", "--config", filepath.Join(dir, "nfpm.yaml"), "--packager", packager, "--target", dir)
	c.Dir, c.Env = "..", append(os.Environ(), "VERSION="+version, "GOARCH="+runtime.GOARCH)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "tapgw?"+version+"*."+packager))
	labtest.Must(t, err)
	return files[0]
}

// volatile is what a package manager itself writes.
var volatile = []string{"/var/lib/dpkg", "/var/lib/rpm", "/root/.rpmdb", "/var/log", "/var/cache", "/tmp", "/run", "/proc", "/sys", "/dev",
	"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/.pwd.lock", "/usr/lib/sysimage"}

// files lists those of the machine with their sizes.
func (m *machine) files() (list []string) {
	m.t.Helper()
	var prune []string
	for _, path := range volatile {
		prune = append(prune, "-path "+path)
	}
	out := m.sh(`find / \( ` + strings.Join(prune, " -o ") + ` \) -prune -o -type d -printf '%p/\n' -o -printf '%p %s\n'`)
	list = strings.Split(out, "\n")
	slices.Sort(list)
	return list
}

// expectFiles fails the test unless the machine has the same files as before.
func (m *machine) expectFiles(when string, before []string) {
	m.t.Helper()
	after := m.files()
	for _, f := range after {
		if !slices.Contains(before, f) {
			m.t.Errorf("%s there is %s", when, f)
		}
	}
	for _, f := range before {
		if !slices.Contains(after, f) {
			m.t.Errorf("%s there is no %s", when, f)
		}
	}
}

// expectText fails the test unless a file has that text.
func (m *machine) expectText(when, name, want string) {
	m.t.Helper()
	text, err := os.ReadFile(m.path(name))
	if err != nil || string(text) != want {
		m.t.Errorf("%s %s is %q, %v", when, name, text, err)
	}
}

// TestPackageDeb: the package installs on a bare system, upgrades keep an edited configuration file and replace another, and after a purge
// nothing is left.
func TestPackageDeb(t *testing.T) {
	t.Parallel()
	m := newMachine(t, labtest.Namespace(t, "host"), system(t), "sleep", "infinity")
	before := m.files()
	first, second, third := m.give(built(t, "tapgw_", ".deb")), m.give(next(t, "deb", "998")), m.give(next(t, "deb", "999"))
	m.run("dpkg", "--install", first)
	m.expectInstalled()

	m.run("dpkg", "--install", second)
	m.expectText("after an upgrade", conffile, "# version 998\n")
	m.write(conffile, "# mine\n")
	m.run("dpkg", "--install", second)
	m.expectText("after the same again", conffile, "# mine\n")
	m.run("dpkg", "--force-confold", "--install", third)
	m.expectText("after an upgrade", conffile, "# mine\n")
	m.expectText("after an upgrade", conffile+".dpkg-dist", "# version 999\n")

	m.run("dpkg", "--install", m.give(built(t, "tapgw-tray_", ".deb")))
	m.run("dpkg", "--purge", "tapgw-tray")

	m.run("dpkg", "--remove", "tapgw")
	m.expectText("after the removal", conffile, "# mine\n")
	if out, err := m.try("sh", "-c", "command -v tapgw"); err == nil {
		t.Errorf("after the removal there is %s", out)
	}
	m.run("dpkg", "--purge", "tapgw")
	m.expectFiles("after the purge", before)
}

// expectInstalled looks at what the package is to do with a system that does not run.
func (m *machine) expectInstalled() {
	m.t.Helper()
	if out := m.run("tapgw", "version"); !strings.Contains(out, "tapgw") {
		m.t.Errorf("version: %s", out)
	}
	m.run("tapgw", "config", "check")
	if out := m.run("id", "tapgw"); !strings.Contains(out, "(tapgw)") {
		m.t.Errorf("the user: %s", out)
	}
	if out, _ := m.try("systemctl", "is-enabled", "tapgw"); out != "disabled" { // as it takes over the default route
		m.t.Errorf("the service is %s", out)
	}
	if out := m.sh("zcat /usr/share/man/man8/tapgw-status.8.gz"); !strings.Contains(out, ".SH SYNOPSIS") {
		m.t.Errorf("the manual page is\n%s", out)
	}
	m.run("bash", "-n", "/usr/share/bash-completion/completions/tapgw")
}

// TestPackageRPM: the same by rpm.
func TestPackageRPM(t *testing.T) {
	t.Parallel()
	m := newMachine(t, labtest.Namespace(t, "host"), system(t), "sleep", "infinity")
	// Folders that are of other packages where rpm is at home.
	m.run("mkdir", "-p", "/usr/lib/NetworkManager/conf.d", "/usr/share/fish/vendor_completions.d", "/usr/share/zsh/site-functions")
	before := m.files()
	first, second := m.give(built(t, "tapgw-0", ".rpm")), m.give(next(t, "rpm", "998"))
	m.run("rpm", "--install", "--nodeps", first) // what it depends on are Debian's packages here
	m.expectInstalled()
	m.write(conffile, "# mine\n")
	m.run("rpm", "--upgrade", "--nodeps", second)
	m.expectText("after an upgrade", conffile, "# mine\n")
	m.expectText("after an upgrade", conffile+".rpmnew", "# version 998\n")
	m.run("rpm", "--erase", "tapgw")
	m.expectText("after the removal", conffile+".rpmsave", "# mine\n")
	m.sh("rm -r /etc/tapgw; userdel tapgw") // rpm has no purge
	m.expectFiles("after the removal", before)
}

// TestPackageUnit: systemd finds no fault with the unit, and hardly an exposed side.
func TestPackageUnit(t *testing.T) {
	t.Parallel()
	m := newMachine(t, labtest.Namespace(t, "host"), system(t), "sleep", "infinity")
	m.run("dpkg", "--install", m.give(built(t, "tapgw_", ".deb")))
	if out := m.run("systemd-analyze", "verify", "--man=no", "tapgw.service"); out != "" {
		t.Errorf("verify: %s", out)
	}
	out := m.run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=26", "tapgw.service")
	t.Log(out[strings.LastIndex(out, "\n")+1:])
}

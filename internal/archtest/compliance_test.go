package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is where the repository lies, seen from this package.
const root = "../.."

// requirements are the ids that docs/rfc-compliance.md must have, one row each.
const requirements = `
RFC4787-REQ1 RFC4787-REQ2 RFC4787-REQ3 RFC4787-REQ3a RFC4787-REQ4 RFC4787-REQ5 RFC4787-REQ5a RFC4787-REQ5b RFC4787-REQ5c
RFC4787-REQ6 RFC4787-REQ6a RFC4787-REQ7 RFC4787-REQ8 RFC4787-REQ9 RFC4787-REQ9a RFC4787-REQ10 RFC4787-REQ10a RFC4787-REQ11
RFC4787-REQ12 RFC4787-REQ12a RFC4787-REQ12b RFC4787-REQ13 RFC4787-REQ13a RFC4787-REQ14 RFC4787-REQ14a
RFC5382-REQ1 RFC5382-REQ2 RFC5382-REQ2a RFC5382-REQ3 RFC5382-REQ3a RFC5382-REQ3b RFC5382-REQ4 RFC5382-REQ4a RFC5382-REQ5
RFC5382-REQ6 RFC5382-REQ7 RFC5382-REQ8 RFC5382-REQ9 RFC5382-REQ10
RFC5508-REQ1 RFC5508-REQ1a RFC5508-REQ2 RFC5508-REQ3 RFC5508-REQ3a RFC5508-REQ3b RFC5508-REQ3c RFC5508-REQ3d RFC5508-REQ4
RFC5508-REQ5 RFC5508-REQ6 RFC5508-REQ7 RFC5508-REQ7a RFC5508-REQ8 RFC5508-REQ9 RFC5508-REQ10a RFC5508-REQ10b RFC5508-REQ10c
RFC5508-REQ10d RFC5508-REQ10e RFC5508-REQ10f RFC5508-REQ11
RFC6888-REQ1 RFC6888-REQ2 RFC6888-REQ3 RFC6888-REQ4 RFC6888-REQ5 RFC6888-REQ6 RFC6888-REQ7 RFC6888-REQ8 RFC6888-REQ10
RFC6888-REQ11 RFC6888-REQ12 RFC6888-REQ13 RFC6888-REQ14 RFC6888-REQ15
RFC7857-S2 RFC7857-S2.1 RFC7857-S2.2 RFC7857-S3 RFC7857-S4 RFC7857-S5 RFC7857-S6 RFC7857-S7 RFC7857-S7.1 RFC7857-S8
RFC7857-S9 RFC7857-S10 RFC7857-S11 RFC7857-S12
RFC6056 RFC5961 RFC5927 RFC4884 RFC6864 RFC1812 RFC4443 RFC1624 RFC768 RFC4301 RFC3948 RFC2637 RFC5597 RFC9260 RFC3828 RFC791
RFC9000 RFC5780 RFC4861 RFC4862 RFC5722 RFC6946 RFC8200 RFC8201
RFC6296-S2.4 RFC6296-S2.5 RFC6296-S2.6 RFC6296-S3.1 RFC6296-S3.4 RFC6296-S3.7 RFC6296-S3.7a RFC6296-S4.2 RFC6296-S4.3
RFC6296-ICMPv6
MW-1 MW-2 MW-3 MW-4 MW-5 MW-6 MW-10 MW-11 MW-12 MW-13`

// verdicts are what a row may say; the first two need a test.
var verdicts = []string{"met", "deviates", "not applicable"}

// row is a line of the compliance tables.
type row struct {
	id, verdict, sentence string
	tests                 []string
}

// TestCompliance: docs/rfc-compliance.md has each requirement once, and names tests that exist; tests that are named after a
// requirement are in it.
func TestCompliance(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "rfc-compliance.md"))
	if err != nil {
		t.Fatal(err)
	}
	exist := testNames(t)
	named := make(map[string]bool)
	missing := strings.Fields(requirements)
	for _, r := range rows(string(text)) {
		if i := slices.Index(missing, r.id); i >= 0 {
			missing = slices.Delete(missing, i, i+1)
		} else {
			t.Errorf("%s has two rows, or is no id of the list in this test", r.id)
		}
		checkRow(t, r)
		for _, name := range r.tests {
			named[name] = true
			if !exist[name] {
				t.Errorf("%s: there is no test %s", r.id, name)
			}
		}
	}
	for _, id := range missing {
		t.Errorf("%s has no row", id)
	}
	for name := range exist {
		if (strings.HasPrefix(name, "TestRFC") || strings.HasPrefix(name, "TestMW")) && !named[name] {
			t.Errorf("no row names %s", name)
		}
	}
}

func checkRow(t *testing.T, r row) {
	t.Helper()
	if !slices.Contains(verdicts, r.verdict) {
		t.Errorf("%s: the verdict %q is none of %q", r.id, r.verdict, verdicts)
	}
	if len(r.tests) == 0 && slices.Contains(verdicts[:2], r.verdict) {
		t.Errorf("%s is said to be %s, without a test", r.id, r.verdict)
	}
	if !strings.HasSuffix(r.sentence, ".") {
		t.Errorf("%s: %q is no sentence", r.id, r.sentence)
	}
}

// rows reads the lines "| id | verdict | sentence | test, test |"; a dash is no test.
func rows(text string) (all []row) {
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) != 4 || cells[0] == "id" || strings.HasPrefix(cells[0], "--") {
			continue
		}
		r := row{id: cells[0], verdict: cells[1], sentence: cells[2]}
		for name := range strings.SplitSeq(cells[3], ",") {
			if name = strings.TrimSpace(name); name != "–" {
				r.tests = append(r.tests, name)
			}
		}
		all = append(all, r)
	}
	return all
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// testNames returns the tests of the whole repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// lastFault is the number of the last row of docs/faults.md.
const lastFault = 68

// faultName is how a test tells the faults it injects: TestFault02_03_Blackhole, TestMW4_Fault16_SameAddress.
var faultName = regexp.MustCompile(`Fault((?:\d\d_)+)`)

// TestFaults: docs/faults.md has each fault once and names tests that exist; a test that is named after faults is in their rows.
func TestFaults(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	exist, tests := testNames(t), faultRows(t, string(text))
	for n := 1; n <= lastFault; n++ {
		list, ok := tests[n]
		if !ok {
			t.Errorf("fault %d has no row", n)
		}
		for _, name := range list {
			if !exist[name] {
				t.Errorf("fault %d: there is no test %s", n, name)
			}
		}
	}
	for name := range exist {
		for _, n := range faultsOf(name) {
			if !slices.Contains(tests[n], name) {
				t.Errorf("the row of fault %d in docs/faults.md does not name %s", n, name)
			}
		}
	}
}

// faultRows reads the lines "| number | fault | test, test |"; a dash is no test.
func faultRows(t *testing.T, text string) map[int][]string {
	t.Helper()
	tests := make(map[int][]string)
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		n, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if err != nil || len(cells) != 3 {
			continue
		}
		if _, twice := tests[n]; twice || n > lastFault {
			t.Errorf("fault %d has two rows, or is none", n)
		}
		tests[n] = nil
		for name := range strings.SplitSeq(cells[2], ",") {
			if name = strings.TrimSpace(name); name != "–" {
				tests[n] = append(tests[n], name)
			}
		}
	}
	return tests
}

// faultsOf are the numbers in the name of a test.
func faultsOf(name string) (numbers []int) {
	match := faultName.FindStringSubmatch(name)
	if match == nil {
		return nil
	}
	for part := range strings.SplitSeq(strings.Trim(match[1], "_"), "_") {
		if n, err := strconv.Atoi(part); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// Package golden compares what tests make with files that hold it, and writes these anew when a test runs with -update.
package golden

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Text fails the test where got is not the file at path.
func Text(t testing.TB, path, got string) {
	t.Helper()
	if diff := cmp.Diff(string(File(t, path, []byte(got))), got); diff != "" {
		t.Errorf("%s (-want +got; run with -update if this is meant):\n%s", path, diff)
	}
}

// File returns the file at path, after it was written with got if the test runs with -update.
func File(t testing.TB, path string, got []byte) []byte {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run with -update to write it", err)
	}
	return want
}

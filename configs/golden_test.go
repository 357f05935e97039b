package configs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tapgw/internal/golden"
)

// TestMessages compares every word that is said about the bad files in testdata.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := Parse(data, "tapgw.yaml")
			if err == nil {
				t.Fatalf("accepted as %+v", loaded.Config)
			}
			golden.Text(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

// TestShow also covers the warnings, which are all of the file's that is allowed and unwise.
func TestShow(t *testing.T) {
	loaded, err := Load(Options{Path: "testdata/office.yaml", Env: []string{
		"TAPGW_PROBE_TARGETS=1.1.1.1, arp://gateway", "TAPGW_NAT_MAX_SESSIONS=131072", "TAPGW_NAT_PORTS=", "PATH=/bin",
		"TAPGW_SOCKET=/tmp/s", "TAPGW_PROBE_INTERVALL=1s", "TAPGW_\x1b[2J=1",
	}})
	if err != nil {
		t.Fatal(err)
	}
	golden.Text(t, "testdata/office.show.txt", string(loaded.Show())+"\n"+loaded.Warnings.Error()+"\n")
	without, err := Parse(loaded.Show(), "show")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(loaded.Config, without.Config, comparers); diff != "" {
		t.Errorf("what is shown parses to something else (-want +got):\n%s", diff)
	}
}

// TestShowRules covers the warnings about rules.
func TestShowRules(t *testing.T) {
	loaded, err := Load(Options{Path: "testdata/rules.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	golden.Text(t, "testdata/rules.show.txt", string(loaded.Show())+"\n"+loaded.Warnings.Error()+"\n")
	back, err := Parse(loaded.Show(), "show")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(loaded.Config, back.Config, comparers); diff != "" {
		t.Errorf("what is shown parses to something else (-want +got):\n%s", diff)
	}
}

func TestEnvironmentMessages(t *testing.T) {
	_, err := Load(Options{Path: "testdata/office.yaml", Env: []string{
		"TAPGW_NAT_MAX_SESSIONS=lots", "TAPGW_UPLINKS=eth0", "TAPGW_UPLINKS_0_NAME=x", "TAPGW_PROBE_QUORUM=4",
		"TAPGW_PROBE_TARGETS=1.1.1.1,ping://2.2.2.2",
	}})
	want := strings.Join([]string{
		`TAPGW_NAT_MAX_SESSIONS: nat.max_sessions: "lots" is not a whole number; write a plain number like 64`,
		`TAPGW_PROBE_TARGETS: probe.targets: "ping://" is no way to probe; use icmp://1.1.1.1, tcp://9.9.9.9:443, dns://1.1.1.1/example.org, http://example.org/generate_204, arp://gateway or nd://gateway`,
		`TAPGW_UPLINKS: uplinks cannot be given by the environment; write them into the file`,
		`TAPGW_UPLINKS_0_NAME: uplinks cannot be given by the environment; write them into the file`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Fatalf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	_, err := Parse(bytes.Repeat([]byte("x: 1\n"), maxFile/5), "f")
	if err == nil {
		t.Fatal("accepted")
	}
	if n := strings.Count(err.Error(), "\n"); n != maxProblems || !strings.Contains(err.Error(), "more") {
		t.Fatalf("%d lines, want %d and how many more:\n%s", n, maxProblems, err)
	}
}

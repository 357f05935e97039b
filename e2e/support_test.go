package e2e

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestReportOfAGateway: the whole of a report can be read by root, and a redacted one has no address of this network.
func TestReportOfAGateway(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{IPv6: true}, "")
	w.connect(w.lan, "wan1")
	plain, redacted := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "redacted")
	for path, args := range map[string][]string{plain: {"report", "-o", plain}, redacted: {"report", "--redact", "-o", redacted}} {
		if out, status := w.tapgw(args...); status != 0 {
			t.Fatalf("%s: exit status %d: %s", path, status, out)
		}
	}
	host := w.Hosts[0]
	secrets := []string{host.Addr.String() + ":", host.AddrV6.String(), w.Uplinks[0].Addr().String(), w.Uplinks[1].NextHop().String(), w.Uplinks[0].AddrV6().String()}
	text := strings.Join(reportFiles(t, plain), "\n")
	for _, s := range []string{secrets[0], "nft rule", "route 0.0.0.0/0", "sysctl", "wan1"} {
		if !strings.Contains(text, s) {
			t.Errorf("the report lacks %s", s)
		}
	}
	if strings.Contains(text, "could not be read") {
		t.Errorf("not all can be read: %s", text)
	}
	text = strings.Join(reportFiles(t, redacted), "\n")
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("the redacted report contains %s", s)
		}
	}
	if !strings.Contains(text, `"wan1"`) || !strings.Contains(text, "route 0.0.0.0/0") {
		t.Error("the redacted report lacks what is no secret")
	}
}

func reportFiles(t *testing.T, path string) (texts []string) {
	t.Helper()
	f, err := os.Open(path)
	labtest.Must(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	labtest.Must(t, err)
	for archive := tar.NewReader(zip); ; {
		_, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return texts
		}
		labtest.Must(t, err)
		text, err := io.ReadAll(archive)
		labtest.Must(t, err)
		texts = append(texts, string(text))
	}
}

// completing asks bash what it offers for a line, with what bash-completion defines, as that need not be installed.
const completing = `
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }
compopt() { :; } # there is none outside of a completion
source <("$0" completion bash)
tapgw() { "$TAPGW" "$@"; }
COMP_WORDS=(tapgw "$@") COMP_CWORD=$# COMP_LINE="tapgw $*" COMP_TYPE=9
COMP_POINT=${#COMP_LINE}
__start_tapgw
printf '%s\n' "${COMPREPLY[@]}"
`

// TestCompletionInBash: a real bash offers the uplinks that there are.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "")
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"uplink", "disable", ""}, "wan1\nwan2"},
		{[]string{"sessions", "--uplink", ""}, "wan1\nwan2"},
		{[]string{"uplink", "disable", "wan2"}, "wan2"},
		{[]string{"uplink", "dis"}, "disable"},
		{[]string{"doct"}, "doctor"},
	} {
		cmd := w.Gateway.Command(t.Context(), "bash", append([]string{"--norc", "-c", completing, binary(t)}, c.words...)...)
		cmd.Env = append(os.Environ(), "TAPGW="+binary(t), "TAPGW_SOCKET="+w.socket())
		out, err := cmd.CombinedOutput()
		var got []string
		for line := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			got = append(got, word)
		}
		if err != nil || strings.Join(got, "\n") != c.want {
			t.Errorf("%q: %v, %s", c.words, err, out)
		}
	}
}

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tapgw/api"
	"tapgw/internal/handbook"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestHandbook: each configuration in README.md and docs/ is right.
func TestHandbook(t *testing.T) {
	t.Parallel()
	book, err := handbook.Read("..")
	labtest.Must(t, err)
	topology := labtest.Build(t, lab.Options{})
	configurations := 0
	for _, b := range book.Blocks {
		if b.Language != "yaml" {
			continue
		}
		configurations++
		file := filepath.Join(t.TempDir(), "tapgw.yaml")
		labtest.Must(t, os.WriteFile(file, []byte(strings.Join(b.Lines, "\n")+"\n"), 0o644))
		if out, status := run(t, topology.Gateway, "config", "check", "--config", file); status != 0 {
			t.Errorf("%s: %s", b.Place, out)
		}
	}
	if configurations < 5 {
		t.Errorf("%d configurations were tried", configurations)
	}
}

// daemons are the commands that do not run beside a daemon: those and what they clean up are other tests' matter.
var daemons = []string{"run", "cleanup", "demo"}

// TestHandbookCommands: each other command in README.md and docs/ does what it is for at a running daemon.
func TestHandbookCommands(t *testing.T) {
	t.Parallel()
	book, err := handbook.Read("..")
	labtest.Must(t, err)
	r := reader{world: beginNamed(t), file: filepath.Join(t.TempDir(), "tapgw.yaml")}
	labtest.Must(t, os.WriteFile(r.file, nil, 0o644))
	tried := map[string]bool{}
	for _, c := range book.Commands {
		args := r.adapt(c.Args)
		line := strings.Join(args, " ")
		if tried[line] || slices.Contains(daemons, args[0]) {
			continue
		}
		tried[line] = true
		if err := r.try(args); err != nil && !onlyNamed(c, err) {
			t.Errorf("%s: tapgw %s: %v", c.Place, line, err)
		}
		if args[0] == "uplink" || args[0] == "pause" {
			labtest.Must(t, r.undo())
		}
	}
	if len(tried) < 30 {
		t.Errorf("%d commands were tried", len(tried))
	}
	r.request(book)
}

// request makes the requests to the control socket that scripts are shown.
func (r reader) request(book handbook.Book) {
	r.t.Helper()
	made := 0
	for _, b := range book.Blocks {
		for _, line := range b.Lines {
			request, ok := strings.CutPrefix(strings.TrimSpace(line), "curl --unix-socket "+api.DefaultSocket+" ")
			if !ok {
				continue
			}
			made++
			out, err := r.ns.Command(r.t.Context(), "sh", "-c", "curl -fsS --unix-socket "+r.socket()+" "+request).CombinedOutput()
			if err != nil {
				r.t.Errorf("%s: %s: %v %s", b.Place, line, err, out)
			}
		}
	}
	if made < 2 {
		r.t.Errorf("%d requests were made", made)
	}
}

// onlyNamed reports whether the text speaks of a command that needs arguments.
func onlyNamed(c handbook.Command, err error) bool {
	var exit *exec.ExitError
	return c.Text && len(c.Args) == 1 && errors.As(err, &exit) && exit.ExitCode() == 2
}

// reader does what the documentation says.
type reader struct {
	world
	file string // of a configuration
}

// adapt puts what the laboratory has into a command's place of what the documentation speaks of.
func (r reader) adapt(args []string) []string {
	server, host := lab.ServerAddrs[0].String(), r.Hosts[0].Addr.String()
	here := map[string]string{
		"NAME": "fibre", "UPLINK": "fibre", "wifi": "fibre", "phone": "cable", "lte": "cable", "COMMAND": "true", "CMD": "true", "ssh": "true",
		"DURATION": "1s", "example.com": server, "93.184.216.34:443": server + ":443", "203.0.113.9:443": server + ":443",
		"192.168.1.20": host, "192.168.50.7": host, "CLIENT": host, "SITE": "example.org", "tapgw.yaml": r.file,
	}
	args = slices.Clone(args)
	for i, word := range args {
		if h, ok := here[word]; ok {
			args[i] = h
		}
	}
	switch strings.Join(args[:min(2, len(args))], " ") {
	case "help fibre", "help true":
		return []string{"help", "status"}
	case "config init":
		return append(args, "--force", "--config", r.file)
	case "capture --uplink":
		return append(args, "--duration", "1s")
	}
	return args
}

// undo has all uplinks serve again.
func (r reader) undo() error {
	ctx := r.t.Context()
	return errors.Join(r.client.SetUplink(ctx, "fibre", true), r.client.Prefer(ctx, ""), r.client.SetMetered(ctx, "fibre", "auto"), r.client.Resume(ctx))
}

// endless are the words that make a command go on until it is interrupted.
var endless = []string{"events", "--every"}

// try runs a command, where it may write files, and says what is wrong with its status.
func (r reader) try(args []string) error {
	c := r.ns.Command(r.t.Context(), binary(r.t), append([]string{"--socket", r.socket()}, args...)...)
	c.Dir = r.t.TempDir()
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if slices.ContainsFunc(args, func(a string) bool { return slices.Contains(endless, a) }) {
		return r.firstLine(c)
	}
	err := c.Run()
	if args[0] == "doctor" && strings.Contains(out.String(), "0 failed") {
		return nil // a laboratory has no time server
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out.String())
	}
	return nil
}

// firstLine runs a command until it has written a line.
func (r reader) firstLine(c *lab.Cmd) error {
	c.Stdout = nil
	pipe, err := c.StdoutPipe()
	labtest.Must(r.t, err)
	labtest.Must(r.t, c.Start())
	_, err = bufio.NewReader(pipe).ReadString('\n')
	labtest.Must(r.t, c.Process.Kill())
	_ = c.Wait() // killed
	return err
}

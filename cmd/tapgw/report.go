package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/report"
)

const reportHelp = `Pack what helps to understand a fault into one archive, and say before what that
is. Passwords, keys and the like are removed. With --redact, addresses and names
of hosts and sites are replaced too: the same by the same, so that the report
still makes sense. Without root the state of the kernel is missing.`

func (a *app) reportCommand() *cobra.Command {
	var file string
	var redact bool
	c := &cobra.Command{
		Use:   "report",
		Short: "Pack what helps to understand a fault into one archive",
		Long:  reportHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				file = "tapgw-report-" + a.Now().Format("20060102-150405") + ".tar.gz"
			}
			return a.report(c.Context(), file, redact)
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "the archive to write (default tapgw-report-DATE-TIME.tar.gz)")
	c.Flags().BoolVar(&redact, "redact", false, "replace addresses and names of hosts and sites")
	return c
}

// reportMode of the archive: only its owner may read it.
const reportMode = 0o600

func (a *app) report(ctx context.Context, path string, redact bool) (err error) {
	parts := a.parts(ctx, redact)
	if err := a.announce(parts, redact); err != nil {
		return err
	}
	without := report.Secrets
	if redact {
		name, _ := os.Hostname()
		r := report.NewRedactor(name)
		without = func(text []byte) []byte { return r.Redact(report.Secrets(text)) }
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, reportMode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists; give another name with --output", path)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := errors.Join(report.Write(f, parts, a.Now(), without), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the report: %w", err), os.Remove(path))
	}
	_, err = fmt.Fprintf(a.Stdout, "Wrote %s; look into it before you give it away.\n", clean(path))
	return err
}

// announce says what will be in the report.
func (a *app) announce(parts []report.Part, redact bool) error {
	var b strings.Builder
	fmt.Fprintln(&b, "The report contains:")
	for _, p := range parts {
		fmt.Fprintf(&b, "  %-14s %s\n", p.Name, p.About)
	}
	fmt.Fprintln(&b, "Passwords, keys and the like are removed.")
	if redact {
		fmt.Fprintln(&b, "Addresses and names of hosts and sites are replaced.")
	} else {
		fmt.Fprintln(&b, "It tells addresses of this network; --redact replaces them.")
	}
	_, err := fmt.Fprint(a.Stdout, b.String())
	return err
}

// reportedSessions is how many sessions a report has at most.
const reportedSessions = 10_000

func (a *app) parts(ctx context.Context, redacted bool) []report.Part {
	client := a.client()
	return []report.Part{
		{Name: "about.txt", About: "versions of tapgw, Go and the kernel, the time", Read: func() ([]byte, error) { return a.about(ctx, redacted) }},
		{Name: "status.json", About: "the state of the daemon and its uplinks", Read: asJSON(func() (any, error) { return client.Status(ctx) })},
		{Name: "config.yaml", About: "the configuration in force", Read: func() ([]byte, error) { return a.configInForce(ctx) }},
		{Name: "sessions.json", About: fmt.Sprintf("sessions, at most %d", reportedSessions), Read: asJSON(func() (any, error) {
			list, err := client.Sessions(ctx, api.Filter{Limit: reportedSessions})
			for i := range list {
				if redacted { // names without a dot look like any word
					list[i].Host = ""
				}
			}
			return list, err
		})},
		{Name: "usage.json", About: "data that uplinks have used of their caps", Read: asJSON(func() (any, error) { return client.Usage(ctx) })},
		{Name: "events.jsonl", About: "what happened, and the states now", Read: func() ([]byte, error) { return a.eventLines(ctx) }},
		{Name: "doctor.json", About: "what tapgw doctor says", Read: asJSON(func() (any, error) { return a.examine(ctx) })},
		{Name: "kernel.txt", About: "devices, addresses, routes, rules, nftables, sysctls", Read: a.KernelState},
	}
}

// asJSON encodes an answer.
func asJSON(ask func() (any, error)) func() ([]byte, error) {
	return func() ([]byte, error) {
		v, err := ask()
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	}
}

func (a *app) about(ctx context.Context, redacted bool) ([]byte, error) {
	running, err := a.client().Version(ctx)
	if err != nil {
		running = err.Error()
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	release, _ := os.ReadFile("/etc/os-release") // some systems have none
	var b bytes.Buffer
	fmt.Fprintf(&b, "tapgw %s\ndaemon %s\n%s %s/%s\n", a.Version, running, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	fmt.Fprintf(&b, "kernel %s %s\nredacted %v\n\n%s", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), redacted, release)
	return b.Bytes(), nil
}

// configInForce is the daemon's, or what the file makes where none runs.
func (a *app) configInForce(ctx context.Context) ([]byte, error) {
	text, err := a.client().Config(ctx)
	if errors.Is(err, api.ErrNoDaemon) {
		return a.ShowConfig(a.configPath)
	}
	return text, err
}

// eventLines are the events that the daemon remembers, and those that a stream begins with.
func (a *app) eventLines(ctx context.Context) ([]byte, error) {
	past, err := a.client().PastEvents(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	add := func(e api.Event) { _ = writeJSONLine(&b, e) } // to memory, which cannot fail
	for _, e := range past {
		add(e)
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	err = a.client().Events(ctx, add)
	return b.Bytes(), err
}

// kernelState lists what this network namespace holds.
func kernelState() ([]byte, error) {
	here, err := lab.Here()
	if err != nil {
		return nil, err
	}
	state, err := lab.Dump(here)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("only root may read all of it: %w", err), here.Close())
	}
	return []byte(strings.Join(state, "\n") + "\n"), here.Close()
}

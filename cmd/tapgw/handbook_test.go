package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"tapgw/internal/handbook"
)

// placeholders are what the documentation writes where a number or the like belongs.
var placeholders = strings.NewReplacer("=N", "=1", "=DURATION", "=1m")

// TestDocumentedCommands: each command line in README.md and docs/ is one that the program takes.
func TestDocumentedCommands(t *testing.T) {
	book, err := handbook.Read("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(book.Commands) < 20 {
		t.Errorf("only %d commands were found", len(book.Commands))
	}
	for _, c := range book.Commands {
		if err := takes(c); err != nil {
			t.Errorf("%s: tapgw %s: %v", c.Place, strings.Join(c.Args, " "), err)
		}
	}
	for _, wrong := range []string{"stauts", "uplink", "uplink remove lte", "status --jsno", "uplink enable", "config show all"} {
		if takes(handbook.Command{Args: strings.Fields(wrong)}) == nil {
			t.Errorf("tapgw %s was taken", wrong)
		}
	}
}

// takes says what is wrong with a command line, without doing anything.
func takes(line handbook.Command) error {
	c, rest, err := newRoot(newWorld("").Env).Find(line.Args)
	if err != nil || len(rest) == 0 && line.Text {
		return err
	}
	for i := range rest {
		rest[i] = placeholders.Replace(rest[i])
	}
	if err := c.ParseFlags(rest); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if c.HasSubCommands() {
		return fmt.Errorf("%q has no such command", c.CommandPath())
	}
	return c.ValidateArgs(c.Flags().Args())
}

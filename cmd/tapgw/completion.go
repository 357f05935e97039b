package main

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// completeTime bounds how long somebody who has pressed the Tab key waits for a daemon.
const completeTime = 500 * time.Millisecond

// uplinkFlags are the flags that take the name of an uplink.
var uplinkFlags = []string{"uplink", "via", "for"}

// plainName are names that no shell does anything with; others, which an interface may have, are not offered.
var plainName = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{N}._:@-]*$`)

// uplinkNames are those of the running daemon's uplinks, none without a daemon.
func (a *app) uplinkNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	s, _ := a.client().Status(ctx)
	var names []string
	for _, u := range s.Uplinks {
		if plainName.MatchString(u.Name) {
			names = append(names, u.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// oneUplink completes the first argument.
func (a *app) oneUplink(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.uplinkNames(c, args, begun)
}

// complete gives every flag that names an uplink the names that there are, and keeps files from being offered as arguments.
func (a *app) complete(c *cobra.Command) {
	for _, name := range uplinkFlags {
		if c.Flags().Lookup(name) != nil {
			_ = c.RegisterFlagCompletionFunc(name, a.uplinkNames) // it fails where the command has done so itself
		}
	}
	if c.ValidArgsFunction == nil && !c.HasSubCommands() && len(c.ValidArgs) == 0 {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, child := range c.Commands() {
		a.complete(child)
	}
}

// shells are those that `tapgw completion` writes for.
var shells = []string{"bash", "zsh", "fish"}

// keepShells removes the others.
func keepShells(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		for _, shell := range c.Commands() {
			if !slices.Contains(shells, shell.Name()) {
				c.RemoveCommand(shell)
			}
		}
	}
}

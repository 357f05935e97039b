package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manSection is that of commands for administrators.
const manSection = "8"

// manCommand is for whoever builds packages. SOURCE_DATE_EPOCH in the environment is the date of the pages.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], configDirMode); err != nil {
				return fmt.Errorf("make the folder of the manual pages: %w", err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: manSection, Source: "tapgw " + a.Version, Manual: "tapgw"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write the manual pages: %w", err)
			}
			_, err := fmt.Fprintf(a.Stdout, "wrote the manual pages to %s\n", clean(args[0]))
			return err
		},
	}
}

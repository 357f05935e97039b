package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tapgw/configs"
)

const (
	configMode    = 0o644
	configDirMode = 0o755
)

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check, show or begin the configuration"}
	c.AddCommand(a.configCheck(), a.configShow(), a.configInit())
	return c
}

// path is the file that the commands are about.
func (a *app) path() string {
	if a.configPath != "" {
		return a.configPath
	}
	return configs.DefaultPath
}

// pathFlag names the file to another command.
func (a *app) pathFlag() string {
	if a.configPath == "" {
		return ""
	}
	return " --config " + clean(a.configPath)
}

func (a *app) configCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say whether the configuration is right, and where it is not",
		RunE: func(*cobra.Command, []string) error {
			found, warnings, err := a.CheckConfig(a.configPath)
			if err != nil {
				return err
			}
			for _, w := range warnings {
				fmt.Fprintln(a.Stderr, "warning:", clean(w))
			}
			verdict := "ok"
			if !found {
				verdict = "no such file, so the defaults count; write one with: sudo tapgw config init"
			}
			_, err = fmt.Fprintf(a.Stdout, "%s: %s\n", clean(a.path()), verdict)
			return err
		},
	}
}

func (a *app) configShow() *cobra.Command {
	var running bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration with all defaults, as YAML",
		RunE: func(c *cobra.Command, _ []string) error {
			show := func() ([]byte, error) { return a.ShowConfig(a.configPath) }
			if running {
				show = func() ([]byte, error) { return a.client().Config(c.Context()) }
			}
			text, err := show()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Stdout, cleanLines(string(text)))
			return err
		},
	}
	c.Flags().BoolVar(&running, "running", false, "the one in force in the running daemon")
	return c
}

func (a *app) configInit() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a commented configuration to start from",
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := a.InitConfig(c.Context())
			if err != nil {
				return err
			}
			if err := writeConfig(a.path(), text, force); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Stdout, "wrote %s; edit it, then: tapgw config check%s\nIt counts from the next start on; where tapgw runs: sudo tapgw reload\n",
				clean(a.path()), a.pathFlag())
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "overwrite the file when it exists")
	return c
}

func writeConfig(path string, text []byte, force bool) error {
	if err := os.MkdirAll(filepath.Dir(path), configDirMode); err != nil {
		return fmt.Errorf("make the folder of the configuration (use sudo, or --config): %w", err)
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if !force {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flags, configMode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists; give another --config, or --force to overwrite it", path)
	}
	if err != nil {
		return fmt.Errorf("write the configuration (use sudo, or --config): %w", err)
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

package configs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/viper"
)

// DefaultPath is read when no path is given; it need not exist.
const DefaultPath = "/etc/tapgw/tapgw.yaml"

// Options say where a configuration comes from.
type Options struct {
	Path string   // of a file that must exist; empty reads DefaultPath if there is one
	Env  []string // "TAPGW_KEY=value" overrides, as os.Environ gives them; others are ignored
}

// Loaded is a configuration and how it came about.
type Loaded struct {
	Config   Config
	Path     string   // of the file, empty when there was none
	Warnings Problems // allowed, but probably not meant
	origins  map[string]origin
}

// Load reads the file and the environment over the defaults. When values are wrong the error is Problems, all of them;
// a file that must exist and does not is fs.ErrNotExist.
func Load(o Options) (*Loaded, error) {
	path := o.Path
	if path == "" {
		path = DefaultPath
	}
	data, err := readFile(path)
	if o.Path == "" && errors.Is(err, fs.ErrNotExist) {
		path, err = "", nil
	}
	if err != nil {
		return nil, err
	}
	return assemble(data, path, o.Env, true)
}

// Parse reads a configuration from memory, without environment and without the files that it names; name is used in
// messages.
func Parse(data []byte, name string) (*Loaded, error) { return assemble(data, name, nil, false) }

// readFile reads one byte more than allowed at most, so that the size check sees the excess without reading it all.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no configuration: %w; write one with `tapgw config init`, or leave out --config", err)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration cannot be read: %w; check its owner and mode", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration cannot be read: %w; give the path of a YAML file", err)
	}
	return data, nil
}

// loader carries one configuration from text to values.
type loader struct {
	doc      *document
	env      map[string]string // variable by key
	layers   *viper.Viper      // environment over file over defaults, all as text
	config   Config
	problems Problems
	warnings Problems
	files    bool            // those that the configuration names are read
	failed   map[string]bool // paths with a problem, and the keys they belong to
}

func assemble(data []byte, name string, env []string, files bool) (*Loaded, error) {
	l := &loader{files: files, doc: readDocument(data, name), layers: viper.New(), env: map[string]string{}, failed: map[string]bool{}}
	for _, p := range l.doc.problems {
		l.fail(p)
	}
	l.stack(env)
	l.decode()
	l.check()
	if len(l.problems) > 0 {
		return nil, l.problems.sorted()
	}
	return &Loaded{Config: l.config, Path: name, Warnings: l.warnings.sorted(), origins: l.origins()}, nil
}

// stack lays environment over file over defaults.
func (l *loader) stack(env []string) {
	defaults := Default()
	for _, f := range configFields {
		l.layers.SetDefault(f.key, f.get(&defaults))
	}
	if err := l.layers.MergeConfigMap(l.doc.tree); err != nil {
		l.fail(Problem{Source: l.doc.name, What: err.Error(), Fix: "simplify the file"})
	}
	for variable, value := range overrides(env) {
		if key, ok := l.variable(variable); ok {
			l.env[key] = variable
			l.layers.Set(key, value)
		}
	}
}

// overrides are the variables that are ours and not empty.
func overrides(env []string) map[string]string {
	found := map[string]string{}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, envPrefix) && value != "" {
			found[name] = value
		}
	}
	return found
}

// fileOnly returns the key that only a file can give, which a variable is about; "" for none.
func fileOnly(variable string) string {
	for _, key := range []string{uplinksKey, setsKey, groupsKey, rulesKey} {
		if strings.HasPrefix(variable, envName(key)) {
			return key
		}
	}
	return ""
}

// clientEnv is read by the commands that talk to the daemon, and is no part of the configuration.
const clientEnv = "TAPGW_SOCKET"

// variable finds the key that an environment variable overrides. Unknown ones are only warned about, because anyone may
// begin a variable with these letters.
func (l *loader) variable(name string) (key string, ok bool) {
	names := make([]string, len(configFields))
	for i, f := range configFields {
		if names[i] = envName(f.key); names[i] == name {
			return f.key, true
		}
	}
	switch {
	case name == clientEnv:
	case fileOnly(name) != "":
		l.fail(Problem{Source: quoteIfOdd(name), What: fileOnly(name) + " cannot be given by the environment", Fix: "write them into the file"})
	default:
		fix := "unset it, or see `tapgw config show` for the keys"
		if near := nearest(name, names); near != "" {
			fix = "did you mean " + near + "?"
		}
		l.warnings = append(l.warnings, Problem{Source: quoteIfOdd(name), What: "unknown variable, ignored", Fix: fix})
	}
	return "", false
}

package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"tapgw/internal/golden"
)

const guideHead = `# Configuration

Every key of ` + "`/etc/tapgw/tapgw.yaml`" + `, made from the reference and the types in ` + "`configs/`" + ` by
` + "`go test ./configs -run TestGuide -update`" + `. All of it is optional: without a file, all uplinks of the routing table are used.

- ` + "`tapgw config init`" + ` writes a commented file for this machine, ` + "`tapgw config check`" + ` finds mistakes, ` + "`tapgw config show`" + ` tells
  what is in force and where it was set.
- The environment overrides the file, by the variable named beside a key; lists take commas there.
- ` + "`tapgw reload`" + ` applies changes without dropping a session, but of those that need a restart. A wrong file changes nothing.
- The same as one file: [configs/reference.yaml](../configs/reference.yaml).
`

// guided is one key of the reference with what is said of it.
type guided struct {
	path    string // as nat.ports, uplinks[].interface, groups.NAME.scheduler
	example string
	lines   []string
}

// chapter is a top-level block of the reference.
type chapter struct {
	key   string
	intro []string
	block string // that the keys being read lie in
	keys  []guided
}

var (
	keyLine     = regexp.MustCompile(`^( *(?:- )?)([a-z0-9_]+):(?: +([^ #].*?))?(?: +# (.*))?$`)
	commentLine = regexp.MustCompile(`^ {20,}# (.*)$`)
	wordFirst   = regexp.MustCompile(`^([a-z0-9_-]+): (.*)$`)
)

// chapters reads the reference.
func chapters() (list []chapter) {
	for line := range strings.Lines(reference) {
		line = strings.TrimSuffix(line, "\n")
		if title, ok := strings.CutPrefix(line, "## "); !ok {
			if len(list) > 0 {
				list[len(list)-1].read(line)
			}
		} else if key, intro, named := strings.Cut(title, ": "); named && !strings.Contains(key, " ") {
			list = append(list, chapter{key: key, intro: []string{intro}})
		} else {
			last := &list[len(list)-1]
			last.intro = append(last.intro, title)
		}
	}
	return list
}

// read takes a line of a chapter. What is commented out is an example.
func (c *chapter) read(line string) {
	if example, ok := strings.CutPrefix(line, "#  "); ok {
		line = "  " + example
	}
	if m := commentLine.FindStringSubmatch(line); m != nil {
		last := &c.keys[len(c.keys)-1]
		last.lines = append(last.lines, m[1])
		return
	}
	m := keyLine.FindStringSubmatch(line)
	if m == nil {
		return // a value of a list
	}
	g := guided{path: c.path(len(m[1]), m[2]), example: m[3]}
	if g.path == c.key {
		g.example = "" // nothing: the examples are below
	}
	if m[4] != "" {
		g.lines = []string{m[4]}
	}
	if !slices.ContainsFunc(c.keys, func(other guided) bool { return other.path == g.path }) {
		c.keys = append(c.keys, g)
	}
}

// path is where a key is that is so many characters from the left.
func (c *chapter) path(depth int, key string) string {
	switch {
	case depth == 0:
		return key
	case depth == 2 && (c.key == groupsKey || c.key == setsKey):
		return c.key + ".NAME"
	case depth == 2:
		c.block = key
		return c.key + "." + key
	case c.key == groupsKey:
		return c.key + ".NAME." + key
	case c.key == uplinksKey || c.key == rulesKey:
		return c.key + "[]." + key
	}
	return c.key + "." + c.block + "." + key
}

// fact is what the types say of a key.
type fact struct {
	path, value, variable string
	restart               bool
	accepts               func(word string) bool
}

func factsOf[T any](prefix string, fields []field[T], initial T) (list []fact) {
	for _, f := range fields {
		list = append(list, fact{
			path: prefix + f.key, value: strings.Join(f.get(&initial), ", "), restart: f.restart,
			accepts: func(word string) bool {
				ok, into := true, initial
				f.set(&into, []string{word}, func(int, error) { ok = false })
				return ok
			},
		})
	}
	return list
}

func facts() []fact {
	global := factsOf("", configFields, Default())
	for i := range global {
		global[i].variable = envName(global[i].path)
	}
	return slices.Concat(global, factsOf(uplinksKey+"[].", uplinkFields, defaultUplink),
		factsOf(groupsKey+".NAME.", groupFields, defaultGroup), factsOf(rulesKey+"[].", ruleFields, Rule{}))
}

// TestGuide: docs/configuration.md says all that the reference says, and has every key of the types.
func TestGuide(t *testing.T) {
	var b strings.Builder
	b.WriteString(guideHead)
	told := map[string]bool{}
	for _, c := range chapters() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", c.key, capital(strings.Join(c.intro, " ")))
		for _, g := range c.keys {
			b.WriteString(g.markdown(told))
		}
	}
	for _, f := range facts() {
		if !told[f.path] {
			t.Errorf("the reference does not mention %s", f.path)
		}
	}
	golden.Text(t, "../docs/configuration.md", b.String())
}

// markdown is the part of the guide about a key. It notes which keys of the types that tells of.
func (g guided) markdown(told map[string]bool) string {
	var mine []fact
	for _, f := range facts() {
		if f.path == g.path || g.example != "" && strings.HasPrefix(f.path, g.path+".") {
			mine, told[f.path] = append(mine, f), true
		}
	}
	if mine == nil && len(g.lines) == 0 {
		return ""
	}
	text := "\n**`" + g.path + "`**" + g.values(mine) + "\n"
	for _, paragraph := range g.paragraphs() {
		text += paragraph + "\n"
	}
	return text
}

// values says what a key has when nobody sets it, and how it is set.
func (g guided) values(mine []fact) string {
	var parts []string
	if len(mine) == 0 || mine[0].variable == "" {
		if g.example != "" {
			parts = append(parts, "as `"+g.example+"`")
		}
		return strings.Join(append([]string{""}, parts...), " ")
	}
	for _, f := range mine {
		value := "`" + f.value + "`"
		if f.value == "" {
			value = "none"
		}
		parts = append(parts, value+" (`"+f.variable+"`)")
	}
	if mine[0].restart {
		parts = append(parts, "needs a restart")
	}
	return " " + strings.Join(parts, ", ")
}

// paragraphs are the description, with each key or value that it names on a line of its own.
func (g guided) paragraphs() (list []string) {
	for _, line := range g.lines {
		text := strings.TrimSpace(line)
		m := wordFirst.FindStringSubmatch(text)
		switch {
		case m != nil && g.names(m[1]):
			list = append(list, "- `"+m[1]+"`: "+m[2])
		case len(list) == 0:
			list = append(list, capital(text))
		default:
			list[len(list)-1] += " " + text
		}
	}
	if len(list) > 0 {
		list[0] = "\n" + list[0]
	}
	return list
}

// names reports whether a word is a key below g, or a value of one of few.
func (g guided) names(word string) bool {
	return slices.ContainsFunc(facts(), func(f fact) bool {
		below := strings.HasPrefix(f.path, g.path+".")
		return f.path == g.path+"."+word || (f.path == g.path || below) && f.accepts(word) && !f.accepts("nonsense")
	})
}

func capital(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}

package configs

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// origin says where a value was set: a line of the file, a variable, or neither for a default.
type origin struct {
	line     int
	variable string
}

func (o origin) String() string {
	switch {
	case o.variable != "":
		return o.variable
	case o.line > 0:
		return fmt.Sprintf("line %d", o.line)
	}
	return "default"
}

// Marshal writes every key of a configuration as YAML that Parse reads back to the same values.
func Marshal(c Config) []byte { return render(c, nil) }

// Show is Marshal with the origin of every value beside it.
func (l *Loaded) Show() []byte {
	head := "# The file is " + quoteIfOdd(l.Path) + ".\n"
	if l.Path == "" {
		head = "# There is no file.\n"
	}
	return append([]byte(head), render(l.Config, func(path string) string { return l.origins[path].String() })...)
}

// render builds the YAML tree; comment, when given, says what to write beside a key.
func render(c Config, comment func(path string) string) []byte {
	root := &yaml.Node{Kind: yaml.MappingNode}
	addFields(root, &c, configFields, "", comment)
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range c.Uplinks {
		element := &yaml.Node{Kind: yaml.MappingNode}
		addFields(element, &c.Uplinks[i], uplinkFields, index(uplinksKey, i), comment)
		list.Content = append(list.Content, element)
	}
	addBlock(root, uplinksKey, list)
	addSets(root, c.Sets, comment)
	addGroups(root, c.Groups, comment)
	addRules(root, c.Rules, comment)
	return encode(root)
}

func addSets(root *yaml.Node, sets []Set, comment func(path string) string) {
	block := &yaml.Node{Kind: yaml.MappingNode}
	for i := range sets {
		value := leaf(sets[i].texts(), true)
		if comment != nil {
			value.LineComment = "# " + comment(join(setsKey, sets[i].Name))
		}
		block.Content = append(block.Content, text(sets[i].Name), value)
	}
	addBlock(root, setsKey, block)
}

func addGroups(root *yaml.Node, groups []Group, comment func(path string) string) {
	block := &yaml.Node{Kind: yaml.MappingNode}
	for i := range groups {
		element := &yaml.Node{Kind: yaml.MappingNode}
		addFields(element, &groups[i], groupFields, join(groupsKey, groups[i].Name), comment)
		block.Content = append(block.Content, text(groups[i].Name), element)
	}
	addBlock(root, groupsKey, block)
}

func addRules(root *yaml.Node, rules []Rule, comment func(path string) string) {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range rules {
		element := &yaml.Node{Kind: yaml.MappingNode}
		addFields(element, &rules[i], ruleFields, index(rulesKey, i), comment)
		list.Content = append(list.Content, element)
	}
	addBlock(root, rulesKey, list)
}

// addBlock adds a block, on one line if it is empty.
func addBlock(root *yaml.Node, key string, block *yaml.Node) {
	if len(block.Content) == 0 {
		block.Style = yaml.FlowStyle
	}
	root.Content = append(root.Content, text(key), block)
}

func addFields[T any](root *yaml.Node, c *T, fields []field[T], prefix string, comment func(string) string) {
	for _, f := range fields {
		texts := f.get(c)
		if prefix != "" && strings.Join(texts, "") == "" {
			continue // an uplink's unset key means "as found"
		}
		value := leaf(texts, f.list)
		if comment != nil {
			value.LineComment = "# " + comment(join(prefix, f.key))
		}
		key := f.key
		if f.short {
			key = key[:strings.LastIndexByte(key, '.')]
		}
		block, name := descend(root, key)
		block.Content = append(block.Content, text(name), value)
	}
}

// leaf is the node of one key's text.
func leaf(texts []string, list bool) *yaml.Node {
	if list {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, t := range texts {
			n.Content = append(n.Content, text(t))
		}
		return n
	}
	return text(texts[0])
}

// descend finds or makes the blocks that a dotted key lies in.
func descend(root *yaml.Node, key string) (block *yaml.Node, name string) {
	parts := strings.Split(key, ".")
	for _, part := range parts[:len(parts)-1] {
		root = child(root, part)
	}
	return root, parts[len(parts)-1]
}

func child(block *yaml.Node, name string) *yaml.Node {
	for i := 0; i < len(block.Content); i += 2 {
		if block.Content[i].Value == name {
			return block.Content[i+1]
		}
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	block.Content = append(block.Content, text(name), n)
	return n
}

// text is a scalar node; without a tag the encoder quotes what would otherwise read as something else.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	if isPlain(s) {
		n.Kind, n.Value = yaml.ScalarNode, s
		return n
	}
	n.SetString(s)
	n.Style = yaml.DoubleQuotedStyle
	return n
}

// isPlain reports that s needs no quotes in any position: letters, digits and what addresses, durations and paths consist of.
func isPlain(s string) bool {
	if s == "" || strings.ContainsAny(s[:1], ".-:~%") || strings.HasSuffix(s, ":") || strings.EqualFold(s, "null") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-/:%", r))
	})
}

func encode(root *yaml.Node) []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		panic(fmt.Sprintf("configs: a tree of plain nodes must encode: %v", err)) // writing to memory cannot fail
	}
	return b.Bytes()
}

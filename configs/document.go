package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// schema is the shape of the file, built from the tables of fields.
type schema struct {
	kind     kind
	children map[string]*schema // of a section, or of each element of a list of blocks
	short    string             // of a section: the child that a plain value in its place is for
	of       kind               // of named: what each element is
	limit    int                // elements of a list of blocks, or of named
}

type kind uint8

const (
	section kind = iota // a block of keys
	single              // one value
	several             // a list of values
	phrases             // a list of values that may have blanks in them
	blocks              // a list of blocks
	named               // a block of keys that the user chooses
)

// fileSchema is the shape of the whole file.
var fileSchema = func() *schema {
	root := &schema{}
	for _, f := range configFields {
		root.add(f.key, f.list, f.short)
	}
	root.children[uplinksKey] = element(uplinkFields, schema{kind: blocks, limit: MaxUplinks})
	root.children[setsKey] = &schema{kind: named, of: several, limit: maxSets}
	root.children[groupsKey] = element(groupFields, schema{kind: named, limit: maxGroups})
	root.children[rulesKey] = element(ruleFields, schema{kind: blocks, limit: maxRules})
	return root
}()

// element gives the shape of each element its keys.
func element[T any](fields []field[T], s schema) *schema {
	for _, f := range fields {
		s.add(f.key, f.list, f.short)
		if f.phrases {
			s.children[f.key].kind = phrases
		}
	}
	return &s
}

func (s *schema) add(key string, list, short bool) {
	block := s
	for part := range strings.SplitSeq(key, ".") {
		if s.children == nil {
			s.children = map[string]*schema{}
		}
		if s.children[part] == nil {
			s.children[part] = &schema{}
		}
		block, s = s, s.children[part]
	}
	if short {
		block.short = key[strings.LastIndexByte(key, '.')+1:]
	}
	s.kind = single
	if list {
		s.kind = several
	}
}

// hopeless is the number of problems after which the rest of a file is not looked at.
const hopeless = 200

// maxElements bounds lists; no list of the file has a use for more.
const maxElements = 1024

// document is a file read but not yet understood: values as text, and the line of each key.
type document struct {
	name     string
	tree     map[string]any
	lines    map[string]int // by path, as uplinks[0].capacity.up
	problems Problems
}

// readDocument checks the form of the file: YAML, known keys, each once, values where values belong. Text becomes typed
// values only later, so that file, environment and defaults go through the same parsers.
func readDocument(data []byte, name string) *document {
	d := &document{name: name, lines: map[string]int{}}
	if len(data) > maxFile {
		d.problem(0, "", fmt.Sprintf("is larger than %d KiB", maxFile>>10), "shorten the file")
		return d
	}
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&root); err != nil {
		if !errors.Is(err, io.EOF) {
			d.syntax(data, err)
		}
		return d
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		d.problem(second.Line, "", "a second document begins here", "keep everything in one and remove the --- line")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(data, err)
	}
	d.tree, _ = d.section(root.Content[0], fileSchema, "").(map[string]any)
	return d
}

func (d *document) problem(line int, key, what, fix string) {
	d.problems = append(d.problems, Problem{Source: d.name, Line: line, Key: key, What: what, Fix: fix})
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntax reports what the YAML parser says, or the tab that is the likely cause and that the parser does not name.
func (d *document) syntax(data []byte, err error) {
	number := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		number++
		if bytes.Contains(line[:len(line)-len(bytes.TrimLeft(line, " \t"))], []byte("\t")) {
			d.problem(number, "", "a tab in the indentation", "YAML allows only spaces there")
			return
		}
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	text = text[:min(len(text), 120)] // it may repeat an anchor's name of any length
	d.problem(line, "", "not valid YAML: "+text, "check colons, quotes and indentation near here")
}

// value reads one node as its schema says; nil when there is nothing usable.
func (d *document) value(n *yaml.Node, s *schema, path string) any {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.problem(n.Line, path, "anchors and aliases are not supported", "write the value out")
		return nil
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.problem(n.Line, path, "tags like "+quote(n.Tag)+" are not supported", "write the plain value")
		return nil
	}
	switch s.kind {
	case section:
		return d.section(n, s, path)
	case several:
		return d.several(n, path, splitList)
	case phrases:
		return d.several(n, path, func(text string) []string { return []string{text} })
	case blocks:
		return d.blocks(n, s, path)
	case named:
		return d.named(n, s, path)
	}
	return d.single(n, path)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (d *document) single(n *yaml.Node, path string) any {
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case n.Kind != yaml.ScalarNode:
		d.problem(n.Line, path, "wants one value, not a list or block", "write it on the same line")
	case isNull(n):
		d.problem(n.Line, path, "has no value", "write one or remove the line")
	case strings.ContainsFunc(n.Value, control):
		d.problem(n.Line, path, quote(n.Value)+" contains a line break or control character", "write it on one line")
	default:
		return n.Value
	}
	return nil
}

// section reads a block of keys. An empty one is fine: people comment out what is in it.
func (d *document) section(n *yaml.Node, s *schema, path string) any {
	tree := map[string]any{}
	if isNull(n) {
		return tree
	}
	if n.Kind == yaml.ScalarNode && s.short != "" {
		d.lines[join(path, s.short)] = n.Line
		if text := d.single(n, path); text != nil {
			tree[s.short] = text
		}
		return tree
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n.Line, path, "wants a block of keys", "write one of "+strings.Join(s.names(), ", ")+" followed by a colon")
		return nil
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content) && len(d.problems) < hopeless; i += 2 {
		key := n.Content[i]
		child := s.children[key.Value]
		if key.Kind != yaml.ScalarNode || child == nil {
			d.unknown(key, s, path)
			continue
		}
		where := join(path, key.Value)
		if first := seen[key.Value]; first > 0 {
			d.problem(key.Line, where, fmt.Sprintf("given twice, first on line %d", first), "keep one")
			continue
		}
		seen[key.Value], d.lines[where] = key.Line, key.Line
		if v := d.value(n.Content[i+1], child, where); v != nil {
			tree[key.Value] = v
		}
	}
	return tree
}

// several reads a list of values; one value, or several with commas on one line, will do.
func (d *document) several(n *yaml.Node, path string, split func(string) []string) any {
	var texts []string
	switch n.Kind {
	case yaml.SequenceNode:
		if d.fits(n.Line, path, len(n.Content), maxElements) {
			texts = d.elements(n, path)
		}
	case yaml.ScalarNode:
		text, _ := d.single(n, path).(string)
		if list := split(text); d.fits(n.Line, path, len(list), maxElements) {
			texts = list
		}
	default:
		d.problem(n.Line, path, "wants a list of values", "write them as [a, b]")
	}
	return texts
}

// elements keeps the place of a bad element empty, so that the others keep their numbers.
func (d *document) elements(n *yaml.Node, path string) []string {
	texts := make([]string, len(n.Content))
	for i, element := range n.Content {
		where := index(path, i)
		d.lines[where] = element.Line
		texts[i], _ = d.value(element, &schema{kind: single}, where).(string)
	}
	return texts
}

func (d *document) fits(line int, path string, n, limit int) bool {
	if n > limit {
		d.problem(line, path, fmt.Sprintf("%d elements are too many", n), fmt.Sprintf("use at most %d", limit))
	}
	return n <= limit
}

func (d *document) blocks(n *yaml.Node, s *schema, path string) any {
	list := []any{}
	switch {
	case isNull(n):
	case n.Kind != yaml.SequenceNode:
		d.problem(n.Line, path, "wants a list", "begin each element with a dash, as in \"- interface: eth0\"")
	case d.fits(n.Line, path, len(n.Content), s.limit):
		block := &schema{children: s.children}
		for i, element := range n.Content {
			where := index(path, i)
			d.lines[where] = element.Line
			tree, _ := d.value(element, block, where).(map[string]any)
			list = append(list, tree)
		}
	}
	return list
}

// named reads a block whose keys are names, as a list of blocks in the order of the file; nameOf holds the name of each, and membersOf
// its values if it is a list.
func (d *document) named(n *yaml.Node, s *schema, path string) any {
	list := []any{}
	switch {
	case isNull(n):
	case n.Kind != yaml.MappingNode:
		d.problem(n.Line, path, "wants a block of names", "write a name followed by a colon")
	case d.fits(n.Line, path, len(n.Content)/2, s.limit):
		for i := 0; i+1 < len(n.Content); i += 2 {
			if tree := d.one(n.Content[i], n.Content[i+1], s, path); tree != nil {
				list = append(list, tree)
			}
		}
	}
	return list
}

// one reads one element of named; nil when it has no usable name.
func (d *document) one(key, n *yaml.Node, s *schema, path string) map[string]any {
	if _, err := parseName(key.Value); key.Kind != yaml.ScalarNode || err != nil || key.Value == "" {
		d.problem(key.Line, path, quote(key.Value)+" is not a name", "use up to 32 letters, digits, dots, dashes and underscores")
		return nil
	}
	where := join(path, key.Value)
	if first := d.lines[where]; first > 0 {
		d.problem(key.Line, where, fmt.Sprintf("given twice, first on line %d", first), "keep one")
		return nil
	}
	d.lines[where] = key.Line
	value := d.value(n, &schema{kind: s.of, children: s.children}, where)
	tree, isBlock := value.(map[string]any)
	if !isBlock {
		tree = map[string]any{membersOf: value}
	}
	tree[nameOf] = key.Value
	return tree
}

// unknown reports a key with the known one it may be meant for, here or elsewhere in the file.
func (d *document) unknown(key *yaml.Node, s *schema, path string) {
	if key.Kind != yaml.ScalarNode {
		d.problem(key.Line, path, "a key must be a plain word", "write one of "+strings.Join(s.names(), ", "))
		return
	}
	fix := "use " + strings.Join(s.names(), ", ")
	if near := nearest(key.Value, s.names()); near != "" {
		fix = "did you mean " + near + "?"
	} else if far := fileSchema.find(key.Value, ""); far != "" {
		fix = "did you mean " + far + "?"
	}
	d.problem(key.Line, path, "unknown key "+quote(key.Value), fix)
}

func (s *schema) names() []string {
	names := make([]string, 0, len(s.children))
	for name := range s.children {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// find returns the path of a key with that name, or with that path, anywhere below s.
func (s *schema) find(name, path string) string {
	for _, child := range s.names() {
		where := join(path, child)
		if child == name || where == name {
			return where
		}
		if found := s.children[child].find(name, where); found != "" {
			return found
		}
	}
	return ""
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// splitList splits values written on one line.
func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

package apiserver

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tapgw/api"
)

// answers are the types that the others hang on.
var answers = []any{
	api.Status{}, api.Session{}, api.Event{}, api.Why{}, api.Version{}, api.UplinkUsage{}, api.Probe{}, api.Error{},
	api.History{}, api.SessionGroups{}, api.Dashboard{}, api.Access{}, api.LiveSnapshot{}, api.LiveDelta{}, api.Pin{},
}

// source is what the text of package api says.
type source struct {
	comments  map[string]string // of types, and of fields as Type.Field
	constants map[string]string // values
}

func readSource(t *testing.T) source {
	t.Helper()
	s := source{map[string]string{}, map[string]string{}}
	files, err := filepath.Glob("../../api/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, s.visit)
	}
	return s
}

// visit notes a declaration.
func (s source) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		for _, spec := range n.Specs {
			if one, ok := spec.(*ast.TypeSpec); ok {
				s.comments[one.Name.Name] = n.Doc.Text()
				s.fields(one)
			}
		}
	case *ast.ValueSpec:
		if len(n.Values) == 1 {
			if literal, ok := n.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				s.constants[n.Names[0].Name] = literal.Value
			}
		}
	}
	return true
}

func (s source) fields(of *ast.TypeSpec) {
	if body, ok := of.Type.(*ast.StructType); ok {
		for _, f := range body.Fields.List {
			for _, name := range f.Names {
				s.comments[of.Name.Name+"."+name.Name] = f.Doc.Text() + f.Comment.Text()
			}
		}
	}
}

// describe is the comment on a type or a field in the words of JSON: with values for the names of constants.
func (s source) describe(name string) string {
	text := strings.Join(strings.Fields(s.comments[name]), " ")
	text = regexp.MustCompile(`\bthe (\w+) constants`).ReplaceAllStringFunc(text, func(of string) string {
		return s.list(strings.Fields(of)[1])
	})
	return regexp.MustCompile(`\b[A-Z]\w+\b`).ReplaceAllStringFunc(text, func(word string) string {
		if value, ok := s.constants[word]; ok {
			return value
		}
		return word
	})
}

// list is the values of the constants whose names begin so.
func (s source) list(prefix string) string {
	var values []string
	for name, value := range s.constants {
		if strings.HasPrefix(name, prefix) {
			values = append(values, value)
		}
	}
	slices.Sort(values)
	return strings.Join(values, ", ")
}

// schemas is the part of the description about the types.
func schemas(t *testing.T) string {
	t.Helper()
	s := readSource(t)
	var wanted []reflect.Type
	for _, a := range answers {
		wanted = append(wanted, reflect.TypeOf(a))
	}
	texts := map[string]string{}
	for len(wanted) > 0 {
		of := wanted[0]
		wanted = wanted[1:]
		if texts[of.Name()] == "" {
			texts[of.Name()] = s.object(t, of, &wanted)
		}
	}
	var names []string
	for name := range texts {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		b.WriteString(texts[name])
	}
	return b.String()
}

// object describes a type, and adds those that it uses to wanted.
func (s source) object(t *testing.T, of reflect.Type, wanted *[]reflect.Type) string {
	t.Helper()
	var required []string
	var properties strings.Builder
	for _, f := range reflect.VisibleFields(of) {
		name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "-" {
			continue
		}
		owner := of
		if len(f.Index) > 1 {
			owner = of.Field(f.Index[0]).Type
		}
		if !strings.HasPrefix(option, "omit") {
			required = append(required, name)
		}
		fmt.Fprintf(&properties, "        %s: %s\n", name, property(t, f.Type, s.describe(owner.Name()+"."+f.Name), wanted))
	}
	return fmt.Sprintf("    %s:\n      description: %s\n      type: object\n      required: [%s]\n      properties:\n%s",
		of.Name(), asText(t, s.describe(of.Name())), strings.Join(required, ", "), properties.String())
}

// property is the schema of a field on one line.
func property(t *testing.T, of reflect.Type, comment string, wanted *[]reflect.Type) string {
	t.Helper()
	kind := shape(t, of, wanted)
	if comment == "" {
		return "{" + kind + "}"
	}
	if strings.HasPrefix(kind, "$ref") {
		kind = "allOf: [{" + kind + "}]" // beside a reference nothing else counts
	}
	return "{" + kind + ", description: " + asText(t, comment) + "}"
}

func shape(t *testing.T, of reflect.Type, wanted *[]reflect.Type) string {
	t.Helper()
	switch {
	case of == reflect.TypeFor[netip.Addr]() || of == reflect.TypeFor[netip.AddrPort]():
		return "type: string"
	case of == reflect.TypeFor[time.Time]():
		return "type: string, format: date-time"
	case of == reflect.TypeFor[api.Series]():
		return "type: array, items: {type: number, nullable: true}"
	}
	switch of.Kind() {
	case reflect.Struct:
		*wanted = append(*wanted, of)
		return `$ref: "#/components/schemas/` + of.Name() + `"`
	case reflect.Slice:
		return "type: array, items: {" + shape(t, of.Elem(), wanted) + "}"
	case reflect.String:
		return "type: string"
	case reflect.Bool:
		return "type: boolean"
	case reflect.Int, reflect.Int64:
		return "type: integer"
	case reflect.Uint64:
		return "type: integer, minimum: 0"
	case reflect.Float64:
		return "type: number"
	}
	t.Fatalf("no schema for %s", of)
	return ""
}

// asText is a value as JSON, which YAML reads too.
func asText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

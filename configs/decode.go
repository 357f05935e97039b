package configs

import (
	"errors"
	"strings"

	"github.com/spf13/viper"
)

// decode turns the text of all layers into values.
func (l *loader) decode() {
	decodeFields(l, &l.config, configFields, l.layers, "")
	elements, _ := l.layers.Get(uplinksKey).([]any)
	for i, element := range elements {
		tree, _ := element.(map[string]any)
		l.config.Uplinks = append(l.config.Uplinks, l.uplink(tree, index(uplinksKey, i)))
	}
	l.decodeRules()
}

// uplink decodes one element of uplinks. Name and interface stand in for each other.
func (l *loader) uplink(tree map[string]any, path string) Uplink {
	u := Uplink{Metered: defaultMetered}
	decodeElement(l, &u, defaultUplink, uplinkFields, tree, path)
	switch {
	case u.Name == "" && !l.failed[path+".name"]:
		u.Name = u.Interface
	case u.Interface == "" && !l.failed[path+".interface"]:
		u.Interface = u.Name
	}
	l.settleMetered(&u, path)
	return u
}

// decodeElement decodes one element of a list of blocks over its defaults.
func decodeElement[T any](l *loader, dst *T, defaults T, fields []field[T], tree map[string]any, path string) {
	layers := viper.New()
	for _, f := range fields {
		layers.SetDefault(f.key, f.get(&defaults))
	}
	if err := layers.MergeConfigMap(tree); err != nil {
		l.fail(l.problem(path, &fault{err.Error(), "simplify the file"}))
	}
	decodeFields(l, dst, fields, layers, path)
}

func decodeFields[T any](l *loader, dst *T, fields []field[T], layers *viper.Viper, prefix string) {
	for _, f := range fields {
		path := join(prefix, f.key)
		f.set(dst, texts(layers, f.key, f.list), func(i int, err error) {
			where := path
			if i >= 0 && l.env[path] == "" {
				where = index(path, i)
			}
			if !l.failed[where] {
				l.fail(l.problem(where, err))
			}
		})
	}
}

// texts is the winning layer's text of a key. The environment and defaults come as one text or a list, the file as parsed.
func texts(layers *viper.Viper, key string, list bool) []string {
	value := layers.Get(key)
	text, isText := value.(string)
	switch {
	case isText && list:
		return splitList(text)
	case isText:
		return []string{text}
	}
	return layers.GetStringSlice(key)
}

// problem places an error: at the variable or the line that the value came from.
func (l *loader) problem(path string, err error) Problem {
	p := Problem{Key: path, What: err.Error()}
	var f *fault
	if errors.As(err, &f) {
		p.What, p.Fix = f.what, f.fix
	}
	p.Source, p.Line = l.place(path)
	return p
}

// place finds where a value was set; a default belongs to the nearest block around it.
func (l *loader) place(path string) (source string, line int) {
	if variable := l.env[path]; variable != "" {
		return variable, 0
	}
	for path != "" {
		if line := l.doc.lines[path]; line > 0 {
			return l.doc.name, line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return l.doc.name, 0
}

// fail notes a problem, at its path and at the key the path belongs to.
func (l *loader) fail(p Problem) {
	l.problems = append(l.problems, p)
	l.failed[p.Key] = true
	if strings.HasSuffix(p.Key, "]") {
		l.failed[p.Key[:strings.LastIndex(p.Key, "[")]] = true
	}
}

// warn notes what is allowed and probably not meant.
func (l *loader) warn(path, fix, what string, args ...any) {
	l.warnings = append(l.warnings, l.problem(path, faultf(fix, what, args...)))
}

// refuse notes a problem between values.
func (l *loader) refuse(path, fix, what string, args ...any) {
	l.fail(l.problem(path, faultf(fix, what, args...)))
}

// sound reports that none of these keys has a problem, so that comparing their values makes sense.
func (l *loader) sound(paths ...string) bool {
	for _, path := range paths {
		if l.failed[path] {
			return false
		}
	}
	return true
}

// origins says of every key that is not a default where it was set.
func (l *loader) origins() map[string]origin {
	all := map[string]origin{}
	for path, line := range l.doc.lines {
		all[path] = origin{line: line}
	}
	for key, variable := range l.env {
		all[key] = origin{variable: variable}
	}
	return all
}

package daemon

import "strings"

// ending is why the daemon ended, or what it could not take back, or both.
type ending struct {
	text  string
	parts []error
}

func (e *ending) Error() string   { return e.text }
func (e *ending) Unwrap() []error { return e.parts }

// oneLine joins errors for people who read a log: in one line, the first cause first.
func oneLine(errs ...error) error {
	var e ending
	var texts []string
	for _, err := range errs {
		if err != nil {
			e.parts = append(e.parts, err)
			texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if e.parts == nil {
		return nil
	}
	e.text = strings.Join(texts, "; then: ")
	return &e
}

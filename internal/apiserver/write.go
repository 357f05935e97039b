package apiserver

import (
	"encoding/json"
	"net/http"

	"tapgw/api"
)

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only when the client has gone
}

func writeError(w http.ResponseWriter, code int, message, hint string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(api.Error{Message: message, Hint: hint})
}

// extendEvery is after how many elements of a list the client gets more time.
const extendEvery = 1024

// listWriter writes a JSON list element by element.
type listWriter struct {
	w     http.ResponseWriter
	count int
	err   error
}

func newListWriter(w http.ResponseWriter) *listWriter {
	w.Header().Set("Content-Type", "application/json")
	return &listWriter{w: w}
}

// add writes one element and reports whether the client is still there.
func (l *listWriter) add(v any) bool {
	if l.count%extendEvery == 0 {
		extend(l.w)
	}
	separator := byte(',')
	if l.count == 0 {
		separator = '['
	}
	l.count++
	text, err := json.Marshal(v)
	if err == nil {
		_, err = l.w.Write(append([]byte{separator}, text...))
	}
	l.err = err
	return err == nil
}

func (l *listWriter) end() {
	if l.err != nil {
		return
	}
	closing := "]\n"
	if l.count == 0 {
		closing = "[]\n"
	}
	_, _ = l.w.Write([]byte(closing))
}

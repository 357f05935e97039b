package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// columns is the width that all output for people keeps to.
const columns = 80

// cleanLines is clean for text that may have several lines.
func cleanLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = clean(strings.ReplaceAll(lines[i], "\t", "  "))
	}
	return strings.Join(lines, "\n")
}

// wrap breaks s into lines of at most n columns, all but the first indented.
func wrap(s string, n int, indent string) string {
	var out, line strings.Builder
	for _, word := range strings.Fields(s) {
		word = cut(word, n-len(indent))
		if line.Len() > 0 && utf8.RuneCountInString(line.String())+1+utf8.RuneCountInString(word) > n {
			out.WriteString(line.String() + "\n")
			line.Reset()
			line.WriteString(indent)
		} else if line.Len() > 0 {
			line.WriteByte(' ')
		}
		line.WriteString(word)
	}
	return out.String() + line.String()
}

// clip keeps the first n lines of s and marks that there were more.
func clip(s string, n int) string {
	lines := strings.Split(s, "\n")
	if len(lines) <= n {
		return s
	}
	lines[n-1] = cut(lines[n-1]+"~", columns)
	return strings.Join(lines[:n], "\n")
}

// writeJSON writes v as one indented document, in ASCII, so that nothing in it can steer a terminal.
func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", asciiJSON(text))
	return err
}

// writeJSONLine writes v as one line.
func writeJSONLine(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", asciiJSON(text))
	return err
}

// asciiJSON escapes what lies outside printable ASCII, which in JSON only occurs inside strings.
func asciiJSON(text []byte) string {
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

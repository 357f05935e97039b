package human

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Clean makes text from outside safe to show: every rune that could steer the terminal, turn the direction of writing or
// take other than one column becomes "?".
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if plain(r) {
			return r
		}
		return '?'
	}, s)
}

func plain(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r <= '~'
	}
	kind := width.LookupRune(r).Kind()
	return r != utf8.RuneError && unicode.IsPrint(r) && !unicode.IsMark(r) &&
		kind != width.EastAsianWide && kind != width.EastAsianFullwidth
}

// Cut shortens s to n columns and marks that it did.
func Cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "~"
}

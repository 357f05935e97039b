// Package handbook finds the examples in README.md and docs/, for the tests that try them.
package handbook

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Place is where an example is.
type Place struct {
	File string
	Line int
}

// String is a place as compilers write it.
func (p Place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Block is a fenced block of code.
type Block struct {
	Place
	Language string // behind the fence, "" for none
	Lines    []string
}

// Command is a command line of tapgw.
type Command struct {
	Place
	Args []string // without the program's name
	Text bool     // it is in running text, where arguments may be missing
}

// Book is all examples.
type Book struct {
	Blocks   []Block
	Commands []Command
}

var (
	span = regexp.MustCompile("`([^`]+)`")
	call = regexp.MustCompile(`^(?:sudo +)?(?:bin/|\./)?tapgw +(.+)$`)
)

// Read reads the pages of the repository at root.
func Read(root string) (Book, error) {
	var b Book
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return b, err
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			return b, err
		}
		b.page(page, string(text))
	}
	return b, nil
}

// page takes the examples of a page.
func (b *Book) page(file, text string) {
	var open *Block
	for i, line := range strings.Split(text, "\n") {
		at := Place{file, i + 1}
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			open = &Block{Place: at, Language: fence}
		case isFence:
			b.Blocks, open = append(b.Blocks, *open), nil
		case open != nil:
			open.Lines = append(open.Lines, line)
			if open.Language != "yaml" {
				line, _, _ = strings.Cut(line, " #")
				b.script(at, line, false)
			}
		default:
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				b.script(at, m[1], true)
			}
		}
	}
}

// script takes the commands of a line for the shell.
func (b *Book) script(at Place, line string, text bool) {
	for _, part := range regexp.MustCompile(` (?:&&|\|\||\|) |;`).Split(line, -1) {
		b.command(at, part, text)
	}
}

// command takes one command, and where a part of it may be left out, the one without that too.
func (b *Book) command(at Place, line string, text bool) {
	m := call.FindStringSubmatch(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
	if m == nil {
		return
	}
	optional := regexp.MustCompile(` ?\[([^\]]*)\]`)
	for _, args := range []string{optional.ReplaceAllString(m[1], ""), optional.ReplaceAllString(m[1], " $1")} {
		c := Command{Place: at, Text: text}
		for _, word := range strings.Fields(args) {
			if word = strings.Trim(word, `"'…`); word != "" {
				first, _, _ := strings.Cut(word, "|")
				c.Args = append(c.Args, first)
			}
		}
		b.Commands = append(b.Commands, c)
		if args == m[1] {
			return
		}
	}
}

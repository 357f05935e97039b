package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// Limits of a file of prefixes.
const (
	maxPrefixFile = 32 << 20 // bytes
	maxPrefixes   = 1_000_000
)

// readPrefixes reads a file of a set; where is the key that names it.
func (l *loader) readPrefixes(path, where string) []netip.Prefix {
	if !l.files {
		return nil
	}
	data, err := readRegular(path)
	if err != nil {
		l.refuse(where, "name a readable file with one prefix on each line", "cannot be read: %s", err)
		return nil
	}
	list, err := parsePrefixes(data)
	if err != nil {
		p := l.problem(where, err)
		p.What = quoteIfOdd(path) + ": " + p.What
		l.fail(p)
	}
	return list
}

// readRegular reads a file that is one: a device or a pipe could keep us waiting.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPrefixFile {
		return nil, fmt.Errorf("%s is no file, or larger than %d MiB", quoteIfOdd(path), maxPrefixFile>>20)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxPrefixFile))
}

// parsePrefixes reads one prefix or address a line; what follows # is a comment.
func parsePrefixes(data []byte) (list []netip.Prefix, err error) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text, _, _ := strings.Cut(string(line), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := parsePrefix(text)
		if err != nil {
			f := &fault{what: err.Error()}
			errors.As(err, &f)
			return nil, faultf(f.fix, "line %d: %s", number, f.what)
		}
		if list = append(list, p); len(list) > maxPrefixes {
			return nil, faultf("join neighbouring prefixes", "more than %d prefixes", maxPrefixes)
		}
	}
	return list, nil
}

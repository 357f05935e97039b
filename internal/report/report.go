// Package report packs what helps to understand a fault into one archive, without secrets, and on request without what tells who
// and where somebody is. It is pure.
package report

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"
)

// Part is one file of a report.
type Part struct {
	Name  string
	About string // what it is, a clause
	Read  func() ([]byte, error)
}

// fileMode of the files in an archive.
const fileMode = 0o600

// Write reads all parts and writes them as a compressed archive. What of a part cannot be read is said in its file. clean takes
// out of every text what must not be in it.
func Write(w io.Writer, parts []Part, now time.Time, clean func([]byte) []byte) error {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	for _, p := range parts {
		text, err := p.Read()
		if err != nil {
			text = append(text, fmt.Sprintf("could not be read: %v\n", err)...)
		}
		text = clean(text)
		header := &tar.Header{Name: "tapgw-report/" + p.Name, Mode: fileMode, Size: int64(len(text)), ModTime: now}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("pack %s: %w", p.Name, err)
		}
		if _, err := archive.Write(text); err != nil {
			return fmt.Errorf("pack %s: %w", p.Name, err)
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

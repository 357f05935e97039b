package daemon

import (
	"errors"
	"io/fs"
	"log/slog"

	"tapgw/internal/hostconf"
)

// stateFile is a file that outlives the daemon. Whatever is wrong with it, the gateway runs.
type stateFile struct {
	path    string
	tell    func(err error) // that it cannot be written
	failing bool
}

// read returns what an earlier daemon wrote; nil where there is nothing.
func (f *stateFile) read(log *slog.Logger) ([]byte, error) {
	if _, err := hostconf.RemoveUnfinished(f.path); err != nil {
		log.Debug("files of a killed daemon may be left", "error", err)
	}
	data, err := hostconf.ReadState(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// write replaces the file, and reports whether it did. That it fails is told once, and again after it succeeded.
func (f *stateFile) write(data []byte) bool {
	err := hostconf.WriteState(f.path, data)
	if err != nil && !f.failing {
		f.tell(err)
	}
	f.failing = err != nil
	return err == nil
}

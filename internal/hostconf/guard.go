// Package hostconf changes what the gateway needs changed on the host (reverse path filters, forwarding), remembers in a
// journal what was there before, and puts it back, even from another process after kill -9.
package hostconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Guard sets sysctls with memory, in the network namespace of the calling thread. Its methods are not for concurrent use.
type Guard struct {
	path    string
	journal journal
	lan     []string
	lanV6   []string
	names   map[int]string // of all interfaces at the last Apply, by index

	overridden []string // see Overridden
}

// Open reads the journal at path, which may have been left by a crash, and changes nothing. It fails with ErrJournal when
// the journal is damaged, foreign or of another version.
func Open(path string) (*Guard, error) {
	j, err := loadJournal(path)
	if err != nil {
		return nil, err
	}
	return &Guard{path: path, journal: j}, nil
}

// plan adds to the journal what the settings would overwrite, and leaves those that have to be written. One whose sysctl
// is gone went with its device.
func (j journal) plan(list []setting) (next journal, changes []setting, err error) {
	var errs []error
	for _, s := range list {
		e, err := look(s)
		if err == nil && e.Old != s.value {
			changes = append(changes, s)
			j.Sysctls = j.with(e)
		}
		errs = append(errs, unlessGone(err))
	}
	return j, changes, errors.Join(errs...)
}

// look reads the value that setting s would overwrite.
func look(s setting) (entry, error) {
	if err := allowed(s.path, s.value); err != nil {
		return entry{}, fmt.Errorf("set sysctl: %w", err)
	}
	old, err := readSysctl(s.path)
	if err != nil || old == s.value {
		return entry{Old: old}, err
	}
	if err := allowed(s.path, old); err != nil {
		return entry{}, fmt.Errorf("found a value that could not be put back: %w", err)
	}
	return entry{Path: s.path, Old: old, New: s.value}, nil
}

func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// with is the sysctls with e among them. When somebody changed our value, the value found is what is put back in the end; a
// new device with an old name is the same case.
func (j journal) with(e entry) []entry {
	list := slices.Clone(j.Sysctls)
	if i := j.find(e.Path); i >= 0 {
		list[i] = e
		return list
	}
	return append(list, e)
}

// replace writes the journal where it differs from what was written before.
func (g *Guard) replace(next journal) error {
	if reflect.DeepEqual(next, g.journal) {
		return nil
	}
	if err := next.store(g.path); err != nil {
		return err
	}
	g.journal = next
	return nil
}

// find is the index of a path's entry, or -1.
func (j journal) find(path string) int {
	return slices.IndexFunc(j.Sysctls, func(e entry) bool { return e.Path == path })
}

// Change is a sysctl that has the value we gave it.
type Change struct {
	Path     string // below /proc/sys
	Old, New string
}

// Changes lists what RestoreAll would put back.
func (g *Guard) Changes() (list []Change) {
	for _, e := range g.journal.Sysctls {
		if value, err := readSysctl(e.Path); err == nil && value == e.New {
			list = append(list, Change(e))
		}
	}
	return list
}

// RestoreAll puts back every value that is still what we set. What cannot be put back stays in the journal.
func (g *Guard) RestoreAll() error {
	g.lan, g.lanV6 = nil, nil
	next, err := g.journal.restore(func(entry) bool { return true }, func(entry) bool { return false })
	return errors.Join(err, g.replace(next))
}

// restore undoes the entries that match, the last change first, and returns the journal without them. Until that is
// written, undoing them again does nothing. An entry whose sysctl is gone goes with it, unless it is awaited.
func (j journal) restore(match, awaited func(entry) bool) (journal, error) {
	var errs []error
	var kept []entry
	for _, e := range slices.Backward(j.Sysctls) {
		if !match(e) {
			kept = append(kept, e)
			continue
		}
		err := e.undo()
		if failed := unlessGone(err); failed != nil || err != nil && awaited(e) {
			errs, kept = append(errs, failed), append(kept, e)
		}
	}
	slices.Reverse(kept)
	j.Sysctls = kept
	return j, errors.Join(errs...)
}

// undo leaves alone what somebody else has changed since. It fails with fs.ErrNotExist when the sysctl is gone.
func (e entry) undo() error {
	value, err := readSysctl(e.Path)
	if err != nil || value != e.New || e.isGlobal() {
		return err
	}
	return writeSysctl(e.Path, e.Old)
}

// isGlobal reports whether somebody, such as Docker, has switched forwarding on for all interfaces since, those included that we
// had to.
func (e entry) isGlobal() bool {
	dir, iface, key := e.split()
	if iface == "all" || key != "forwarding" {
		return false
	}
	all, err := readSysctl(dir + "/all/forwarding")
	return err == nil && all == "1"
}

// Put keeps a record of another owner in the journal, under a name of up to 64 bytes; nil removes it.
func (g *Guard) Put(key string, record any) error {
	next := g.journal
	next.Records = make(map[string]json.RawMessage)
	for k, v := range g.journal.Records {
		next.Records[k] = v
	}
	delete(next.Records, key)
	if record != nil {
		raw, err := json.Marshal(record)
		if err != nil {
			return fmt.Errorf("journal record %s: %w", key, err)
		}
		next.Records[key] = raw
	}
	if err := next.validate(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return g.replace(next)
}

// Get reads a record into the value that into points to, and reports whether there was one.
func (g *Guard) Get(key string, into any) (found bool, err error) {
	raw, found := g.journal.Records[key]
	if !found {
		return false, nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return true, fmt.Errorf("%s: record %s: %w: %w", g.path, key, ErrJournal, err)
	}
	return true, nil
}

const sysDir = "/proc/sys"

func readSysctl(path string) (string, error) {
	data, err := os.ReadFile(filepath.Join(sysDir, path))
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func writeSysctl(path, value string) error {
	f, err := os.OpenFile(filepath.Join(sysDir, path), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("set sysctl to %s: %w: start as root, with /proc/sys writable", value, err)
	}
	if err != nil {
		return fmt.Errorf("set sysctl to %s: %w", value, err)
	}
	return nil
}

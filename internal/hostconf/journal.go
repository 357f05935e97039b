package hostconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// ErrJournal means that the journal cannot be used, so that nothing was undone.
var ErrJournal = errors.New("the journal of changed settings cannot be used: look at it and delete it, the settings it names stay until the next boot")

const (
	journalVersion = 1
	maxJournal     = 1 << 20 // bytes
	maxEntries     = 4096
	maxKey         = 64 // bytes of a record's name
)

// journal is what is written down before the host is changed.
type journal struct {
	Version int                        `json:"version"`
	Sysctls []entry                    `json:"sysctls,omitempty"`
	Records map[string]json.RawMessage `json:"records,omitempty"` // of other owners, by name
}

// entry is one changed sysctl.
type entry struct {
	Path string `json:"path"` // below /proc/sys
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Where the settings of interfaces are, below /proc/sys.
const (
	confDir   = "net/ipv4/conf"
	confDirV6 = "net/ipv6/conf"
)

// values lists the interface settings that may be written, and to what. A journal that asks for anything else is refused.
var values = map[string]map[string][]string{
	confDir:   {"rp_filter": {"0", "1", "2"}, "accept_local": {"0", "1"}, "forwarding": {"0", "1"}},
	confDirV6: {"accept_ra": {"0", "1", "2"}, "force_forwarding": {"0", "1"}, "forwarding": {"0", "1"}},
}

// sysctlPath is the path of an interface's IPv4 setting below /proc/sys.
func sysctlPath(iface, setting string) string { return confDir + "/" + iface + "/" + setting }

// sysctlPathV6 is that of IPv6.
func sysctlPathV6(iface, setting string) string { return confDirV6 + "/" + iface + "/" + setting }

// forwardingV6 is the one setting for all interfaces together: before Linux 6.17 there is no other that decides.
const forwardingV6 = confDirV6 + "/all/forwarding"

// split separates the interface from its directory and the name of its setting.
func (e entry) split() (dir, iface, key string) {
	dir, rest := confDir, strings.TrimPrefix(e.Path, confDir+"/")
	if v6, ok := strings.CutPrefix(e.Path, confDirV6+"/"); ok {
		dir, rest = confDirV6, v6
	}
	iface, key, _ = strings.Cut(rest, "/")
	return dir, iface, key
}

// allowed refuses every path and value but those this program sets.
func allowed(path, value string) error {
	dir, iface, setting := entry{Path: path}.split()
	may := values[dir][setting]
	switch {
	case path == forwardingV6:
		may = []string{"0", "1"}
	case path != dir+"/"+iface+"/"+setting || !validInterface(iface):
		return fmt.Errorf("%q is not a setting of an interface", path)
	}
	if !slices.Contains(may, value) {
		return fmt.Errorf("%q may not become %q", path, value)
	}
	return nil
}

// validInterface accepts what the kernel accepts as a name (dev_valid_name), without the global "all" and "default" and what
// JSON cannot carry.
func validInterface(name string) bool {
	switch name {
	case "", ".", "..", "all", "default":
		return false
	}
	return len(name) < unix.IFNAMSIZ && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' })
}

// parseJournal reads what render wrote and refuses everything else.
func parseJournal(data []byte) (journal, error) {
	var j journal
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return journal{}, fmt.Errorf("not a journal: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return journal{}, errors.New("not a journal: something follows it")
	}
	return j, j.validate()
}

func (j journal) validate() error {
	if j.Version != journalVersion {
		return fmt.Errorf("version %d, this program writes %d: clean up with the program that wrote it", j.Version, journalVersion)
	}
	if len(j.Sysctls)+len(j.Records) > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	seen := make(map[string]bool)
	for _, e := range j.Sysctls {
		if err := errors.Join(allowed(e.Path, e.Old), allowed(e.Path, e.New)); err != nil {
			return err
		}
		if seen[e.Path] {
			return fmt.Errorf("%q appears twice", e.Path)
		}
		seen[e.Path] = true
	}
	for key, raw := range j.Records {
		if key == "" || len(key) > maxKey || len(raw) == 0 {
			return fmt.Errorf("invalid record %.80q", key)
		}
	}
	return nil
}

func (j journal) render() ([]byte, error) {
	data, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		return nil, err
	}
	if len(data) > maxJournal {
		return nil, fmt.Errorf("%d bytes are more than a journal may have (%d)", len(data), maxJournal)
	}
	return append(data, '\n'), nil
}

// loadJournal reads the file; a file that does not exist is an empty journal.
func loadJournal(path string) (journal, error) {
	data, err := readTrusted(path)
	if errors.Is(err, fs.ErrNotExist) {
		return journal{Version: journalVersion}, nil
	}
	if err != nil {
		return journal{}, fmt.Errorf("%s: %w: %w", path, ErrJournal, err)
	}
	j, err := parseJournal(data)
	if err != nil {
		return journal{}, fmt.Errorf("%s: %w: %w", path, ErrJournal, err)
	}
	return j, nil
}

// readTrusted reads a small regular file that nobody but us can have written.
func readTrusted(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !ours(path, st.Uid) || st.Mode&0o022 != 0 {
		return nil, fmt.Errorf("not a regular file that only user %d can write", os.Geteuid())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxJournal+2))
	if err == nil && len(data) > maxJournal+1 {
		err = fmt.Errorf("larger than %d bytes", maxJournal)
	}
	return data, err
}

// store replaces the file at once, or removes it when there is nothing to undo.
func (j journal) store(path string) error {
	if len(j.Sysctls) == 0 && len(j.Records) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the journal: %w", err)
		}
		return nil
	}
	data, err := j.render()
	if err == nil {
		err = replaceFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("write the journal %s, without which no setting is changed: %w", path, err)
	}
	return nil
}

// replaceFile gives path new content with mode 0600; a reader sees the old content or the new.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), unfinished(path))
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, hand(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// unfinished is the pattern of the names of journals that are being written.
func unfinished(path string) string { return "." + filepath.Base(path) + ".*" }

// RemoveUnfinished removes what a crash left of journals that were being written, and names it. Nobody else may be writing
// one at path.
func RemoveUnfinished(path string) (removed []string, err error) {
	files, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	for _, f := range files {
		if match, _ := filepath.Match(unfinished(path), f.Name()); !match || !f.Type().IsRegular() {
			continue
		}
		name := filepath.Join(filepath.Dir(path), f.Name())
		if err := os.Remove(name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, name)
	}
	return removed, errors.Join(errs...)
}

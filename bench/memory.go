package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory is what a peer's sessions cost.
type memory struct {
	bytes    uint64
	whole    bool // bytes is all that the peer needs, not only its sessions
	reserved bool // sessions take nothing more, for their memory is reserved at the start
}

// tableSize is room for the sessions of sessionBytes, a power of two above them.
const tableSize = 131072

// spare is room for sessions that are not the flood's: pings.
const spare = 100

// sessionBytes measures bytes per session: what was added by the sessions, and all there is.
func sessionBytes(ctx context.Context, p *peer, s settings) ([]float64, error) {
	before, err := p.memory()
	if err != nil {
		return nil, err
	}
	after, sessions, err := s.few.occupy(ctx, p)
	if err != nil {
		return nil, err
	}
	values := []float64{math.NaN(), math.NaN()}
	if !after.reserved {
		values[0] = (float64(after.bytes) - float64(before.bytes)) / float64(sessions)
	}
	if after.whole {
		values[1] = float64(after.bytes) / float64(sessions)
	}
	return values, nil
}

// wholeMemory measures, in MiB, all that a peer occupies when it holds as many sessions as it may.
func wholeMemory(ctx context.Context, p *peer, s settings) ([]float64, error) {
	m, _, err := s.many.occupy(ctx, p)
	return []float64{float64(m.bytes) / (1 << 20)}, err
}

// occupy opens the flows' sessions and tells what they cost.
func (f flows) occupy(ctx context.Context, p *peer) (m memory, sessions int, err error) {
	if err := f.open(ctx, p); err != nil {
		return m, 0, err
	}
	if sessions, err = p.sessions(); err != nil {
		return m, 0, err
	}
	m, err = p.memory()
	return m, sessions, err
}

// mapBytes is what the BPF maps take that a process has open, each counted once, bytes.
func mapBytes(pid int) (total uint64, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return 0, err
	}
	seen := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return 0, err
		}
		id, size, err := readMap(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		if id != "" && !seen[id] {
			seen[id] = true
			total += size
		}
	}
	return total, nil
}

// readMap finds the map in what the kernel tells of a descriptor; the ID is empty when it is none.
func readMap(fdinfo []byte) (id string, size uint64, err error) {
	for line := range strings.Lines(string(fdinfo)) {
		key, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); key {
		case "map_id":
			id = value
		case "memlock":
			if size, err = strconv.ParseUint(value, 10, 64); err != nil {
				return "", 0, err
			}
		}
	}
	return id, size, nil
}

// residentBytes is a process's resident set without the BPF maps that it has mapped, bytes.
func residentBytes(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	return ownResident(text)
}

// ownResident adds up smaps: a line with the addresses and the name of each mapping, then lines of its figures, in KiB.
func ownResident(smaps []byte) (total uint64, err error) {
	shared := false
	for lines := bufio.NewScanner(bytes.NewReader(smaps)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			shared = strings.Contains(lines.Text(), "bpf-map")
		case len(fields) == 3 && fields[0] == "Rss:" && !shared:
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("smaps reads %q: %w", lines.Text(), err)
			}
			total += kib << 10
		}
	}
	return total, nil
}

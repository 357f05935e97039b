package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"tapgw/uplinks/nft"
)

// bypass is what others have in the kernel that packets of known sessions pass by.
type bypass struct {
	queues []string                 // and filters, as of the last look at everything
	list   atomic.Pointer[[]string] // shared
}

func (b *bypass) status() []string {
	if list := b.list.Load(); list != nil {
		return *list
	}
	return nil
}

// followBypass looks for it: for chains of nftables, which messages tell of, and sometimes for everything.
func (d *Daemon) followBypass(everything bool) error {
	path, err := d.path()
	if err != nil {
		return err
	}
	list, err := d.foreign.PastChains(path)
	if err == nil && everything {
		d.bypass.queues, err = d.foreign.PastQueues(path)
	}
	if errors.Is(err, nft.ErrNoDevice) {
		return nil // messages tell of that, too
	}
	if err != nil {
		return fmt.Errorf("look for what known sessions bypass: %w", err)
	}
	list = slices.Concat(list, d.bypass.queues)
	known := d.bypass.status()
	if slices.ContainsFunc(list, func(line string) bool { return !slices.Contains(known, line) }) {
		d.log.Warn("known sessions bypass what others have in the kernel", "what", strings.Join(list, "; "))
	}
	d.bypass.list.Store(&list)
	return nil
}

// path is where packets of known sessions pass.
func (d *Daemon) path() (p nft.Datapath, err error) {
	p = nft.Datapath{
		TAP: d.pumps.tap.Load().Index(), Uplinks: d.uplinkIndexes(),
		Kernel: d.fast != nil, Onward: slices.Contains(d.untracked.onward[:], true), IPv6: d.carriesIPv6(),
	}
	p.Own, err = d.ownPrograms()
	return p, err
}

// uplinkIndexes are the interface indexes of those whose devices exist.
func (d *Daemon) uplinkIndexes() (indexes []int) {
	for _, u := range d.snapshot.Load().Uplinks {
		if u.Index != 0 {
			indexes = append(indexes, u.Index)
		}
	}
	return indexes
}

// ownPrograms are ours in the kernel, none in userspace.
func (d *Daemon) ownPrograms() ([]ebpf.ProgramID, error) {
	if d.fast == nil {
		return nil, nil
	}
	return d.fast.IDs()
}

package daemon

import (
	"time"

	"tapgw/uplinks"
)

// readFacts asks the kernel, and the files of whoever manages the host's links for what the kernel does not know.
func (d *Daemon) readFacts(now time.Time) (uplinks.Facts, error) {
	facts, err := d.kernel.Read()
	if err != nil {
		return facts, err
	}
	names := make(map[int]string, len(facts.Links))
	for _, l := range facts.Links {
		names[l.Index] = l.Name
	}
	facts.Resolvers = d.dns.Read(names, now)
	return facts, nil
}

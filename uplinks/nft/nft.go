// Package nft keeps our nftables rules in the kernel: the packets the userspace datapath takes are hidden from the host's
// stack, nothing is relayed from one provider to another, and the LAN falls back to plain masquerading when we die. The
// rules of the running daemon lie in tables owned by its socket and vanish with it, even after kill -9.
package nft

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Wanted is everything the ruleset depends on.
type Wanted struct {
	TAP      string     // capture device
	TAPIndex int        // its interface index, which is compared faster than a name; 0 while there is none
	Address  netip.Addr // of the host on it, of IPv4; invalid for none
	// AddressesV6 are those of IPv6 there, which it had before too.
	AddressesV6 []netip.Addr
	Upcall      string // give-back device, "" for none
	Uplinks     []Uplink
	Ports       []PortRange // outside ports the datapath owns on every uplink
	LAN         bool        // there are hosts behind this one
	// Paused: hosts behind this one are to leave by an uplink directly, and to connect anew where they did not before.
	Paused bool
	// IPv6 is captured, so the LAN falls back for it as well. Where it goes its own way it is left alone.
	IPv6 bool
	// NoMasqueradeV6: the kernel cannot translate IPv6, so what of the LAN leaves by an uplink directly stays as it is.
	NoMasqueradeV6 bool
	// Untracked are the indexes of devices whose connections by the TAP stay out of conntrack, as it would see but some of
	// their packets; UntrackedV6 of IPv6.
	Untracked, UntrackedV6 []int
	// UntrackedHost: what this host itself sends and receives by the TAP stays out of conntrack where there is a LAN, for which the
	// kernel tracks it, as nobody's rules meet it.
	UntrackedHost, UntrackedHostV6 bool
	// Exempt are the remotes that hosts behind this one speak to untranslated: what they send is let in.
	Exempt []netip.Prefix
	// ExemptInsides are those of them that speak to everybody so: what is sent to them is let in.
	ExemptInsides []netip.Prefix
	// Prefixes are those of IPv6 of which the host sees nothing but what is sent to Addresses.
	Prefixes []netip.Prefix
	// Turned are the devices of the LAN whose packets to outside endpoints turn back.
	Turned []Turned
}

// Uplink is the part of an uplink that the rules need. Leave it out while its device does not exist.
type Uplink struct {
	Name        string       // of the interface
	Index       int          // of the interface; a new index renews the rules even when the name is the same
	Addresses   []netip.Addr // of both families, as far as the datapath carries them
	Whole       []netip.Addr // those of Addresses of which the host sees nothing
	Insides     []netip.Addr // the hosts of the LAN that have those
	HeaderLess  bool         // frames start with the IP header
	GiveBackMAC [6]byte      // source of frames handed back to the host's stack, which must pass; zero for none
	Taken       bool         // what is ours never comes as far as these rules, nothing need be hidden
	Guard       bool         // we switched forwarding on here, so unasked-for packets must not be forwarded
	GuardV6     bool         // that of IPv6
}

func (u Uplink) guard(f family) bool {
	if f.proto == unix.NFPROTO_IPV6 {
		return u.GuardV6
	}
	return u.Guard
}

// masquerades reports whether what of the LAN leaves by an uplink directly is translated.
func (w Wanted) masquerades(f family) bool {
	return f.proto == unix.NFPROTO_IPV4 || w.IPv6 && !w.NoMasqueradeV6
}

// untracksHost reports whether the host's own packets of a family stay out of conntrack.
func (w Wanted) untracksHost(f family) bool {
	if f.proto == unix.NFPROTO_IPV6 {
		return w.UntrackedHostV6
	}
	return w.UntrackedHost
}

// own are the host's addresses of a family on the TAP.
func (w Wanted) own(f family) set {
	return addressSet(ownedInet, f, setOwn, append(slices.Clone(w.AddressesV6), w.Address))
}

// PortRange is an inclusive range of TCP and UDP ports.
type PortRange struct{ First, Last uint16 }

// Rules is our part of the ruleset in the network namespace where Open was called. Its methods are not for concurrent use.
type Rules struct {
	socket  *socket
	applied plan
	current bool // the kernel holds applied

	generation uint32 // of the whole ruleset when Changed last looked
	intact     uint32 // likewise when Check found everything
}

// Open connects to nf_tables. It fails with ErrOwned while another process runs, so that whoever opens first of all need
// change nothing else on the host to find that out.
func Open() (*Rules, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	_, err = s.query(generation())
	if err == nil {
		err = s.remove(ownedNetdev, ownedTurn, ownedInet)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &Rules{socket: s}, nil
}

// Apply makes the ruleset match w in one transaction, which leaves tables alone that are as they shall be: for a moment the kernel
// looks for the elements of new sets in vain, and what is hidden would come through.
func (r *Rules) Apply(w Wanted) error {
	p := newPlan(w)
	stale := slices.DeleteFunc(slices.Clone(ours), func(t table) bool { return r.current && p.part(t).equal(r.applied.part(t)) })
	if len(stale) == 0 {
		return nil
	}
	changes, err := r.socket.removals(stale...)
	if err != nil {
		return err
	}
	for _, t := range stale {
		changes = append(changes, p.part(t).messages()...)
	}
	r.current = false
	if err := r.socket.commit(changes); err != nil {
		return err
	}
	r.applied, r.current = p, true
	return nil
}

// Check reports whether somebody removed what was applied. The next Apply then writes it anew. It looks when the ruleset has changed
// since the last time, and always at everything: chains of a device go with that unseen.
func (r *Rules) Check(everything bool) (missing bool, err error) {
	if !r.current {
		return false, nil
	}
	generation, err := r.socket.readGeneration()
	if err != nil || generation == r.intact && !everything {
		return false, err
	}
	for _, c := range r.applied.chains {
		intact, err := r.socket.holds(c)
		if err != nil {
			return false, err
		}
		if !intact {
			r.current = false
			return true, nil
		}
	}
	r.intact = generation
	return false, nil
}

// Changed reports whether anybody, we included, has changed the ruleset since it was asked last. All of a change that it
// reports can be read from then on.
func (r *Rules) Changed() (bool, error) {
	generation, err := r.socket.readGeneration()
	if err != nil || generation == r.generation {
		return false, err
	}
	if err := r.socket.settle(); err != nil {
		return false, err
	}
	r.generation = generation
	return true, nil
}

// Left names the tables in the kernel that Close would remove.
func (r *Rules) Left() (tables []string, err error) {
	removals, err := r.socket.removals(ours...)
	for _, m := range removals {
		tables = append(tables, m.about)
	}
	return tables, err
}

// Close removes everything, the fallback too.
func (r *Rules) Close() error {
	return errors.Join(r.socket.remove(ours...), r.socket.close())
}

// Cleanup removes what a crash left behind. It fails with ErrOwned while another process runs.
func Cleanup() error {
	r, err := Open()
	if err != nil {
		return err
	}
	return r.Close()
}

// removals are the messages that delete those of the tables that exist; deleting one that does not would fail.
func (s *socket) removals(tables ...table) (messages []message, err error) {
	for _, t := range tables {
		_, err := s.query(t.get())
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		messages = append(messages, t.remove())
	}
	return messages, nil
}

func (s *socket) remove(tables ...table) error {
	messages, err := s.removals(tables...)
	if err != nil || len(messages) == 0 {
		return err
	}
	return s.commit(messages)
}

// holds reports whether the kernel has the chain with as many rules as we gave it.
func (s *socket) holds(c chain) (bool, error) {
	data, err := s.query(c.get())
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	rules, err := chainUse(data)
	if err != nil {
		return false, fmt.Errorf("nftables: %s: chain %s: decode: %w", c.table, c.name, err)
	}
	return rules == len(c.rules), nil
}

func (p plan) equal(q plan) bool { return bytes.Equal(p.fingerprint(), q.fingerprint()) }

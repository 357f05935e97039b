package names

import "tapgw/internal/packet"

// known is the names of addresses, by who asked. It holds so many entries and no more, of one client so many; those learned
// first make room.
type known struct {
	most, mostOfClient int

	entries []entry // 0 is none
	free    int32   // list of entries, linked by newer[byAll]
	byPair  map[pair]int32
	byAddr  map[packet.Addr]*list // of all clients
	clients map[packet.Addr]*list
	all     list
}

// pair is a client and an address it was told.
type pair struct{ client, addr packet.Addr }

// entry is one name of a pair, in three lists.
type entry struct {
	pair
	name
	until        uint32
	newer, older [lists]int32
}

// The lists an entry is in.
const (
	byAll = iota
	byClient
	byAddr
	lists
)

// list is entries in the order in which they were learned.
type list struct {
	newest, oldest int32
	length         int
}

func newKnown(most, mostOfClient int) known {
	return known{
		most: most, mostOfClient: mostOfClient, entries: make([]entry, 1),
		byPair: map[pair]int32{}, byAddr: map[packet.Addr]*list{}, clients: map[packet.Addr]*list{},
	}
}

// find returns the name of an address.
func (k *known) find(client, addr packet.Addr, now uint32) (name, bool) {
	if e := &k.entries[k.byPair[pair{client, addr}]]; e.counts(now) {
		return e.name, true
	}
	if l := k.byAddr[addr]; l != nil {
		if e := &k.entries[l.newest]; e.counts(now) {
			return e.name, true
		}
	}
	return name{}, false
}

// counts reports whether an entry is one, and has not expired.
func (e *entry) counts(now uint32) bool { return e.full != "" && int32(e.until-now) > 0 }

// learn makes a name that of a pair.
func (k *known) learn(client, addr packet.Addr, n name, until uint32) {
	at := k.byPair[pair{client, addr}]
	if at != 0 && k.entries[at].full == n.full {
		n = k.entries[at].name // so that the new text is not kept beside
	}
	if at != 0 {
		k.drop(at)
	}
	if c := k.clients[client]; c != nil && c.length >= k.mostOfClient {
		k.drop(c.oldest)
	}
	if k.all.length >= k.most {
		k.drop(k.all.oldest)
	}
	at = k.take()
	k.entries[at] = entry{pair: pair{client, addr}, name: n, until: until}
	k.byPair[pair{client, addr}] = at
	k.all.push(k.entries, byAll, at)
	listOf(k.clients, client).push(k.entries, byClient, at)
	listOf(k.byAddr, addr).push(k.entries, byAddr, at)
}

// take returns an entry to be written.
func (k *known) take() int32 {
	if at := k.free; at != 0 {
		k.free = k.entries[at].newer[byAll]
		return at
	}
	k.entries = append(k.entries, entry{})
	return int32(len(k.entries) - 1)
}

// drop forgets an entry.
func (k *known) drop(at int32) {
	e := &k.entries[at]
	delete(k.byPair, e.pair)
	k.all.remove(k.entries, byAll, at)
	if l := k.clients[e.client]; l.remove(k.entries, byClient, at) {
		delete(k.clients, e.client)
	}
	if l := k.byAddr[e.addr]; l.remove(k.entries, byAddr, at) {
		delete(k.byAddr, e.addr)
	}
	*e = entry{}
	e.newer[byAll], k.free = k.free, at
}

// listOf returns the list of an address, which it makes.
func listOf(of map[packet.Addr]*list, a packet.Addr) *list {
	l := of[a]
	if l == nil {
		l = &list{}
		of[a] = l
	}
	return l
}

// push appends an entry as the newest.
func (l *list) push(entries []entry, which int, at int32) {
	entries[at].older[which], entries[at].newer[which] = l.newest, 0
	if l.newest != 0 {
		entries[l.newest].newer[which] = at
	} else {
		l.oldest = at
	}
	l.newest = at
	l.length++
}

// remove takes an entry out, and reports whether the list is empty then.
func (l *list) remove(entries []entry, which int, at int32) bool {
	older, newer := entries[at].older[which], entries[at].newer[which]
	if older != 0 {
		entries[older].newer[which] = newer
	} else {
		l.oldest = newer
	}
	if newer != 0 {
		entries[newer].older[which] = older
	} else {
		l.newest = older
	}
	l.length--
	return l.length == 0
}

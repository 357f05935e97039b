package nat

import "sync/atomic"

// rules are the Binding.Rule of each record. They lie beside the records, as no program needs them, and take no memory as long as no
// rule places a session.
type rules struct {
	list atomic.Pointer[[]atomic.Uint32]
}

// Rule returns what Binding.Rule was of the session r.
func (t *Table) Rule(r Ref) uint32 {
	if list := t.rules.list.Load(); list != nil {
		return (*list)[r].Load()
	}
	return 0
}

// setRule notes the rule of record r. t.mu is held.
func (t *Table) setRule(r, rule uint32) {
	list := t.rules.list.Load()
	if list == nil {
		if rule == 0 {
			return
		}
		all := make([]atomic.Uint32, t.cfg.MaxSessions+1)
		list = &all
		t.rules.list.Store(list)
	}
	(*list)[r].Store(rule)
}

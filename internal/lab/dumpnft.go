package lab

import (
	"encoding/json"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// ruleset lists tables, chains, rules and named sets with their elements; counters are shown without their values.
func (d *dumper) ruleset() error {
	c, err := nftables.New(nftables.WithNetNSFd(d.ns.FD()))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return fmt.Errorf("nftables tables: %w", err)
	}
	for _, t := range tables {
		d.add("nft table %d %s flags %#x", t.Family, t.Name, t.Flags)
		if err := d.sets(c, t); err != nil {
			return err
		}
	}
	chains, err := c.ListChains()
	if err != nil {
		return fmt.Errorf("nftables chains: %w", err)
	}
	for _, chain := range chains {
		if err := d.chain(c, chain); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) chain(c *nftables.Conn, chain *nftables.Chain) error {
	name := fmt.Sprintf("%d %s %s", chain.Table.Family, chain.Table.Name, chain.Name)
	d.add("nft chain %s type %s hook %s priority %s policy %s device %q", name, chain.Type, number(chain.Hooknum),
		number(chain.Priority), number(chain.Policy), chain.Device)
	rules, err := c.GetRules(chain.Table, chain)
	if err != nil {
		return fmt.Errorf("nftables rules of %s: %w", name, err)
	}
	for i, r := range rules {
		text, err := ruleText(r)
		if err != nil {
			return fmt.Errorf("nftables rule %d of %s: %w", i, name, err)
		}
		d.add("nft rule %s %03d %s", name, i, text)
	}
	return nil
}

// ruleText writes out expressions; they are plain structures of exported fields.
func ruleText(r *nftables.Rule) (text string, err error) {
	for _, e := range r.Exprs {
		if _, ok := e.(*expr.Counter); ok {
			e = &expr.Counter{}
		}
		b, err := json.Marshal(e)
		if err != nil {
			return "", err
		}
		text += fmt.Sprintf("%T%s ", e, b)
	}
	return text, nil
}

func (d *dumper) sets(c *nftables.Conn, t *nftables.Table) error {
	sets, err := c.GetSets(t)
	if err != nil {
		return fmt.Errorf("nftables sets of %s: %w", t.Name, err)
	}
	for _, s := range sets {
		name := fmt.Sprintf("%d %s %s", t.Family, t.Name, s.Name)
		d.add("nft set %s key %s map %t interval %t", name, s.KeyType.Name, s.IsMap, s.Interval)
		elements, err := c.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("nftables elements of %s: %w", name, err)
		}
		for _, e := range elements {
			d.add("nft element %s key %x end %x value %x interval end %t", name, e.Key, e.KeyEnd, e.Val, e.IntervalEnd)
		}
	}
	return nil
}

// number writes what an optional number points to.
func number[T ~int32 | ~uint32](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprint(*p)
}

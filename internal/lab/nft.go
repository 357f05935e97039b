package lab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const masqueradeTable = "lab_masquerade"

// Masquerade makes the kernel translate what leaves by any of the devices, as an ordinary router does; none stops it.
func (n *Namespace) Masquerade(devices ...string) error {
	return n.replaceTable(&nftables.Table{Name: masqueradeTable, Family: nftables.TableFamilyIPv4}, len(devices) == 0,
		func(c *nftables.Conn, t *nftables.Table) {
			chain := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
			for _, d := range devices {
				exprs := append(onDevice(expr.MetaKeyOIFNAME, d), &expr.Masq{})
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
			}
		})
}

// replaceTable swaps a table for a new one in a single transaction, so that no packet sees neither.
func (n *Namespace) replaceTable(t *nftables.Table, remove bool, fill func(*nftables.Conn, *nftables.Table)) error {
	c, err := nftables.New(nftables.WithNetNSFd(n.FD()))
	if err != nil {
		return fmt.Errorf("namespace %s: open nftables: %w", n.name, err)
	}
	c.AddTable(t) // deleting one that is missing would fail
	c.DelTable(t)
	if !remove {
		fill(c, c.AddTable(t))
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("namespace %s: replace nftables table %s: %w", n.name, t.Name, err)
	}
	return nil
}

func onDevice(key expr.MetaKey, device string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name[:unix.IFNAMSIZ-1], device)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
}

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

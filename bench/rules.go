package main

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
)

// addMarkRules installs the nftables rules:
//
//	chain pre  { type filter hook prerouting priority mangle
//	             iifname "lan0" ct mark != 0 meta mark set ct mark return
//	             iifname "lan0" ct state new meta mark set numgen random mod 2 offset 1
//	             iifname "lan0" ct mark set meta mark }
//	chain out  { type route hook output priority mangle
//	             ct mark != 0 meta mark set ct mark return
//	             oifname "wan*" ct state new meta mark set numgen random mod 2 offset 1
//	             ct mark set meta mark }
//	chain post { type nat hook postrouting priority srcnat
//	             oifname "wan*" masquerade }
func addMarkRules(gateway *lab.Namespace, f *family) error {
	return addTable(gateway, f, "bench", func(chain addChain) {
		fromLAN := nameStarts(expr.MetaKeyIIFNAME, lab.DeviceLAN+"\x00")
		toUplink := nameStarts(expr.MetaKeyOIFNAME, "wan")
		chain("pre", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle,
			join(fromLAN, restoreMark()), join(fromLAN, newMark()), join(fromLAN, saveMark()))
		chain("out", nftables.ChainTypeRoute, nftables.ChainHookOutput, nftables.ChainPriorityMangle,
			restoreMark(), join(toUplink, newMark()), saveMark())
		chain("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
			join(toUplink, []expr.Any{&expr.Masq{}}))
	})
}

// addForwardRules installs what a careful administrator has:
//
//	chain forward { type filter hook forward priority filter
//	                ct state established,related accept
//	                ct state invalid drop
//	                iifname "lan0" accept
//	                drop }
func addForwardRules(gateway *lab.Namespace, f *family) error {
	return addTable(gateway, f, "bench_forward", func(chain addChain) {
		chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter,
			join(inState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept)),
			join(inState(expr.CtStateBitINVALID), verdict(expr.VerdictDrop)),
			join(nameStarts(expr.MetaKeyIIFNAME, lab.DeviceLAN+"\x00"), verdict(expr.VerdictAccept)),
			verdict(expr.VerdictDrop))
	})
}

// exemptFlood keeps the flood out of connection tracking:
//
//	chain raw { type filter hook prerouting priority raw; udp dport 9 notrack }
func exemptFlood(gateway *lab.Namespace, f *family) error {
	return addTable(gateway, f, "bench_exempt", func(chain addChain) {
		chain("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, portDiscard}},
			&expr.Notrack{},
		})
	})
}

type addChain func(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority, rules ...[]expr.Any)

// addTable installs a table of a family's rules.
func addTable(ns *lab.Namespace, f *family, name string, fill func(addChain)) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns.FD()))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Name: name, Family: f.table})
	fill(func(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority, rules ...[]expr.Any) {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: at})
		for _, exprs := range rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
		}
	})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install the rules of %s (needs nf_tables with numgen, ct and masquerade): %w", name, err)
	}
	return nil
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// inState matches the connection's state.
func inState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

func join(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// nameStarts matches device names by their first bytes; a final zero makes it the whole name.
func nameStarts(key expr.MetaKey, prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(prefix)}}
}

func restoreMark() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		&expr.Verdict{Kind: expr.VerdictReturn},
	}
}

func newMark() []expr.Any {
	return join(inState(expr.CtStateBitNEW), []expr.Any{
		&expr.Numgen{Register: 1, Modulus: 2, Type: unix.NFT_NG_RANDOM, Offset: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	})
}

func saveMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: 1},
	}
}

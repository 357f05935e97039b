package lab

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Fault is a rule that loses part of what a router forwards while its links stay up. It holds for flows old and new, from
// the next packet on.
type Fault struct {
	From string  // device the packet came in by, "" for any
	To   string  // device the packet leaves by, "" for any
	ICMP bool    // only ICMP
	Loss float64 // share of the packets lost, 0–1; 1 is a black hole
}

// Blackhole loses everything.
var Blackhole = Fault{Loss: 1}

// ICMPBlackhole loses all ICMP, echoes and errors alike.
var ICMPBlackhole = Fault{ICMP: true, Loss: 1}

// RandomLoss loses a share of the packets (0–1) in both directions.
func RandomLoss(share float64) Fault { return Fault{Loss: share} }

// lossScale is the resolution of Fault.Loss.
const lossScale = 100_000

const (
	faultTable   = "lab_faults"
	silenceTable = "lab_silence"
)

// SetFaults replaces all faults of a router at once; none heals it.
func (n *Namespace) SetFaults(faults ...Fault) error {
	return n.replaceTable(&nftables.Table{Name: faultTable, Family: nftables.TableFamilyIPv4}, len(faults) == 0,
		func(c *nftables.Conn, t *nftables.Table) {
			chain := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
			for _, f := range faults {
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: f.exprs()})
			}
		})
}

// Silence drops everything that arrives on a device, ARP included, while its carrier stays: a modem that hangs.
func (n *Namespace) Silence(device string, on bool) error {
	return n.replaceTable(&nftables.Table{Name: silenceTable, Family: nftables.TableFamilyNetdev}, !on,
		func(c *nftables.Conn, t *nftables.Table) {
			chain := c.AddChain(&nftables.Chain{Name: "ingress", Table: t, Type: nftables.ChainTypeFilter, Device: device,
				Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter})
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: drop()})
		})
}

func (f Fault) exprs() []expr.Any {
	var e []expr.Any
	if f.From != "" {
		e = append(e, onDevice(expr.MetaKeyIIFNAME, f.From)...)
	}
	if f.To != "" {
		e = append(e, onDevice(expr.MetaKeyOIFNAME, f.To)...)
	}
	if f.ICMP {
		e = append(e, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_ICMP}})
	}
	if f.Loss < 1 {
		e = append(e, withChance(f.Loss)...)
	}
	return append(e, drop()...)
}

// withChance matches a random share of packets. Comparing is bytewise, so the number is put in network order first.
func withChance(share float64) []expr.Any {
	limit := uint32(max(share, 0) * lossScale)
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: lossScale, Type: unix.NFT_NG_RANDOM},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(limit)},
	}
}

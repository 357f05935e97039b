package fastpath

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// attach puts a program before all others: what it takes is nobody else's.
func attach(program *ebpf.Program, index int, where ebpf.AttachType) (link.Link, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: where, Anchor: link.Head()})
	return l, explain(err)
}

// Package fastpath is the kernel half of the data plane: BPF programs that rewrite and redirect packets of sessions that Go
// has opened, without a system call and without Go. They read the session table in memory that both sides map, and never
// decide: whatever is unknown or unusual goes on to Go.
package fastpath

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" fastpath fastpath.bpf.c

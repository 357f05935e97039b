// Command tapgw-bench measures tapgw against the kernel doing mwan3's job, in one run, in turns, in identical laboratories
// of network namespaces; with the argument "failover" it measures how fast tapgw gets over the death of an uplink. It needs
// root and leaves nothing behind. README.md holds the latest figures.
package main

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" bpf bench.bpf.c

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says in two lines on what was measured, when, and which program ("" for none).
func machine(ctx context.Context, program string) string {
	return fmt.Sprintf("%s, %d cores, Linux %s, TCP %s\n%s, %s\n", processor(), runtime.NumCPU(), release(),
		congestionControl(), time.Now().UTC().Format(time.DateOnly), version(ctx, program))
}

// congestionControl matters for the bulk rows: one that paces, such as bbr, leaves the kernel less of its lead.
func congestionControl() string {
	name, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(name))
}

// version is what a program says of itself.
func version(ctx context.Context, program string) string {
	if program == "" {
		return "no tapgw"
	}
	out, err := exec.CommandContext(ctx, program, "version").Output()
	first, _, _ := strings.Cut(string(out), "\n")
	if first == "" {
		return fmt.Sprintf("tapgw of unknown version (%v)", err)
	}
	return first
}

// processor is the name the kernel gives the first one.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}

package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says in two lines on what was measured, and when.
func machine() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, GOMAXPROCS %d, %s\n%s, tapgw at commit %s\n", processor(), runtime.NumCPU(), release(),
		runtime.GOMAXPROCS(0), runtime.Version(), time.Now().UTC().Format(time.DateOnly), commit())
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

// commit is what this program was built from, which `make bench` builds together with the program measured.
func commit() string {
	id, changed := "unknown", ""
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return id
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			id = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " with changes"
		}
	}
	return id + changed
}

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Use is what a thread has used of the machine since it began.
type Use struct {
	Ran   time.Duration
	Waits int // times it has given the processor up by itself
}

// Uses are those of a process, by thread.
type Uses map[string]Use

// UseOf reads what the threads of a process have used (proc(5)).
func UseOf(pid int) Uses {
	all := Uses{}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, thread := range threads {
		ran, _, _ := strings.Cut(readText(thread+"/schedstat"), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(readText(thread+"/status"), "\nvoluntary_ctxt_switches:")
		count, _, _ := strings.Cut(rest, "\n")
		waits, _ := strconv.Atoi(strings.TrimSpace(count))
		all[thread] = Use{time.Duration(ns), waits}
	}
	return all
}

// Since adds up what all threads that there are now have used since then.
func (u Uses) Since(before Uses) (sum Use) {
	for thread, now := range u {
		sum.Ran += now.Ran - before[thread].Ran
		sum.Waits += now.Waits - before[thread].Waits
	}
	return sum
}

func readText(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// Balance simulates how schedulers spread flows over uplinks: with the product's own schedulers, meters and learners, and
// published distributions of flow sizes.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	seeds := flag.Int("seeds", 20, "runs of each row, each with other flows")
	flows := flag.Int("flows", 100_000, "flows of a run")
	only := flag.String("only", "", "only rows whose name contains this")
	strict := flag.Bool("strict", false, "exit with status 1 when a bar is missed")
	flag.Parse()
	missed := 0
	for _, s := range scenarios() {
		if !strings.Contains(s.name, *only) {
			continue
		}
		r := measure(&s, *seeds, *flows)
		r.print(os.Stdout)
		missed += len(r.missed())
	}
	fmt.Printf("%d bars missed.\n", missed)
	if *strict && missed > 0 {
		os.Exit(1)
	}
}

package main

import (
	"fmt"
	"io"

	"tapgw/api"
)

// printSuspects says which uplinks new sessions avoid although they are up.
func printSuspects(w io.Writer, s api.Status) error {
	for _, u := range s.Uplinks {
		name := u.Name
		switch {
		case !u.Suspect && !u.IPv6.Suspect:
			continue
		case !u.Suspect:
			name += " to IPv6"
		}
		text := fmt.Sprintf("- %s: suspect, new sessions had no answer and avoid it for now", name)
		if _, err := fmt.Fprintln(w, wrap(clean(text), columns, "  ")); err != nil {
			return err
		}
	}
	return nil
}

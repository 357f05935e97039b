package main

import (
	"fmt"
	"io"

	"tapgw/api"
)

// printStandIns says which uplinks still carry sessions although better ones work again: that may cost money.
func printStandIns(w io.Writer, s api.Status) error {
	for _, u := range s.Uplinks {
		if u.StandsIn == "" || u.Sessions == 0 {
			continue
		}
		text := fmt.Sprintf("- %s: %s sessions still here, though %s works", u.Name, count(u.Sessions), u.StandsIn)
		if _, err := fmt.Fprintln(w, wrap(clean(text), columns, "  ")); err != nil {
			return err
		}
	}
	return nil
}

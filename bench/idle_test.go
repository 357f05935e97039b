package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func TestParseIdle(t *testing.T) {
	for _, args := range []string{"extra", "-rounds 0", "-rounds x", "-window 0s", "-window -1s", "-window 3", "-nonsense"} {
		if _, err := parseIdle(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	if _, err := command([]string{"idle", "-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
	o, err := parseIdle(strings.Fields("-rounds 3 -window 2m -tapgw x/tapgw"), io.Discard)
	if want := (idleOptions{3, 2 * time.Minute, "x/tapgw"}); err != nil || o != want {
		t.Errorf("options are %+v, %v", o, err)
	}
	if err := idle(t.Context(), idleOptions{binary: "/nowhere/tapgw"}, io.Discard, io.Discard); err == nil {
		t.Error("a program that is missing was accepted")
	}
}

package nft

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// childEnv carries a Wanted to a copy of the test binary that applies it and waits to be killed.
const childEnv = "TAPGW_NFT_CHILD"

func TestMain(m *testing.M) {
	if wanted := os.Getenv(childEnv); wanted != "" {
		if err := child(wanted); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func child(text string) error {
	var wanted Wanted
	if err := json.Unmarshal([]byte(text), &wanted); err != nil {
		return err
	}
	r, err := Open()
	if err != nil {
		return err
	}
	if err := r.Apply(wanted); err != nil {
		return err
	}
	fmt.Println("applied")
	select {}
}

func TestKill9LeavesOnlyTheFallback(t *testing.T) {
	w := newWorld(t)
	w.portForward(otherPort)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := w.host.Command(ctx, "/proc/self/exe")
	wanted, err := json.Marshal(w.wanted())
	w.must(err)
	cmd.Env = append(os.Environ(), childEnv+"="+string(wanted))
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "applied\n" {
		t.Fatalf("child: %q %v", line, err)
	}
	w.unanswered(w.syn(w.isp1, hostOnISP1, poolPort), w.isp1, hostOnISP1)
	second := func() error {
		r, err := Open()
		if err == nil {
			err = r.Close()
		}
		return err
	}
	if err := w.host.Do(second); !errors.Is(err, ErrOwned) {
		t.Errorf("second daemon: %v, want ErrOwned", err)
	}
	if err := w.host.Do(Cleanup); !errors.Is(err, ErrOwned) {
		t.Errorf("cleanup beside a running daemon: %v, want ErrOwned", err)
	}

	w.must(cmd.Process.Signal(unix.SIGKILL))
	_ = cmd.Wait()
	w.expectTables("2 user", "2 tapgw_fallback")
	w.masqueraded(w.listen(w.isp1, 80))
	w.must(w.host.Do(Cleanup))
	w.expectTables("2 user")
	w.reach(w.isp1, hostOnISP1, otherPort, w.listen(w.lan, 80))
}

func (w *world) expectTables(want ...string) {
	w.t.Helper()
	if got := w.tables(); !slices.Equal(got, want) {
		w.t.Errorf("tables %q, want %q", got, want)
	}
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	r := w.apply(wanted)
	before := w.generation(r)
	slices.Reverse(wanted.Uplinks)
	wanted.Ports = []PortRange{{61000, 65535}, {1024, 20000}, {20001, 32767}}
	w.must(r.Apply(wanted))
	if w.generation(r) != before {
		t.Error("the ruleset was rewritten")
	}
	wanted.Ports = pool[:1]
	w.must(r.Apply(wanted))
	if w.generation(r) == before {
		t.Error("the ruleset was not rewritten")
	}
}

// TestFlushRulesetOfOthers: the kernel spares owned tables, so only the fallback is lost.
func TestFlushRulesetOfOthers(t *testing.T) {
	w := newWorld(t)
	r := w.apply(w.wanted())
	w.intact(r, true)
	c := w.conn()
	c.FlushRuleset()
	w.must(c.Flush())
	w.expectTables("5 tapgw", "1 tapgw")
	w.intact(r, false)
	w.must(r.Apply(w.wanted()))
	w.intact(r, true)

	c.FlushTable(&nftables.Table{Name: "tapgw_fallback", Family: nftables.TableFamilyIPv4})
	w.must(c.Flush())
	w.intact(r, false)
	w.must(r.Apply(w.wanted()))
	w.masqueraded(w.listen(w.isp1, 80))

	c.DelTable(&nftables.Table{Name: "tapgw", Family: nftables.TableFamilyNetdev})
	if err := c.Flush(); !errors.Is(err, unix.EPERM) {
		t.Errorf("somebody else deletes an owned table: %v, want EPERM", err)
	}
}

func (w *world) intact(r *Rules, want bool) {
	w.t.Helper()
	missing, err := r.Check(false)
	w.must(err)
	if missing == want {
		w.t.Errorf("missing %t", missing)
	}
}

func TestCloseLeavesNoTrace(t *testing.T) {
	w := newWorld(t)
	w.portForward(otherPort)
	var r *Rules
	w.must(w.host.Do(func() (err error) {
		r, err = Open()
		return err
	}))
	w.must(r.Apply(w.wanted()))
	w.must(r.Close())
	w.expectTables("2 user")
	before := w.generation(w.open())
	w.must(w.host.Do(Cleanup))
	if w.generation(w.open()) != before {
		t.Error("cleaning up a clean ruleset changed it")
	}
}

// TestTablesOfForeignersWithOurName: a ruleset saved while we ran and loaded again leaves tables that nobody owns.
func TestTablesOfForeignersWithOurName(t *testing.T) {
	w := newWorld(t)
	c := w.conn()
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
		c.AddTable(&nftables.Table{Name: "tapgw", Family: family})
	}
	w.must(c.Flush())
	r := w.apply(w.wanted())
	w.unanswered(w.syn(w.isp1, hostOnISP1, poolPort), w.isp1, hostOnISP1)
	w.must(r.socket.close())
	w.expectTables("2 tapgw_fallback")
}

func TestFailedApplyLeavesOldRules(t *testing.T) {
	w := newWorld(t)
	wanted := w.wanted()
	r := w.apply(wanted)
	wanted.Uplinks[1].Name = "a-name-too-long-for-a-device"
	if err := r.Apply(wanted); err == nil {
		t.Fatal("an impossible device was accepted")
	}
	w.unanswered(w.syn(w.isp1, hostOnISP1, poolPort), w.isp1, hostOnISP1)
	w.must(r.Apply(w.wanted()))
	w.intact(r, true)
}

func TestNoPermission(t *testing.T) {
	w := newWorld(t)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread without capabilities ends with the goroutine
		if err := unix.Setns(w.host.FD(), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(header, &make([]unix.CapUserData, 2)[0]); err != nil {
			result <- err
			return
		}
		_, err := Open()
		result <- err
	}()
	if err := <-result; !errors.Is(err, ErrNoPermission) {
		t.Errorf("open without capabilities: %v, want ErrNoPermission", err)
	}
}

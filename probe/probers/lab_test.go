package probers

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
	"tapgw/probe"
)

const (
	patience = 10 * time.Second       // for an answer that must come, on a busy machine
	silence  = 300 * time.Millisecond // for one that must not, but would come at once
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newLab makes a host (the gateway of the laboratory) with two uplinks that lead to one far host.
func newLab(t *testing.T) *lab.Topology {
	t.Helper()
	l := labtest.Build(t, lab.Options{})
	listen(t, l.Internet)
	return l
}

// listen accepts TCP connections to port 443 until the test ends.
func listen(t *testing.T, n *lab.Namespace) {
	t.Helper()
	servers, err := lab.StartHTTP(n, 443, lab.NewHandler())
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, servers.Close()) })
}

// uplink is one uplink of a test host with its Set of probers, which works inside the host's namespace.
type uplink struct {
	Set
	t    *testing.T
	host *lab.Namespace
	link probe.Link
}

func newUplink(t *testing.T, l *lab.Topology, number int) *uplink {
	t.Helper()
	at := l.Uplinks[number-1]
	u := &uplink{t: t, host: l.Gateway, link: probe.Link{Name: at.Device, Source: at.Addr(), Gateway: at.NextHop()}}
	u.find()
	t.Cleanup(func() { labtest.Must(t, u.Close()) })
	return u
}

// find looks the device up, which may have become another one of the same name.
func (u *uplink) find() {
	u.t.Helper()
	index, err := u.host.Index(u.link.Name)
	labtest.Must(u.t, err)
	u.link.Index = index
}

func (u *uplink) Probe(ctx context.Context, link probe.Link, t probe.Target) (rtt time.Duration, err error) {
	err = u.host.Do(func() (err error) { rtt, err = u.Set.Probe(ctx, link, t); return err })
	return rtt, err
}

// ask probes target once, which is expected to answer or to be refused.
func (u *uplink) ask(target string) (time.Duration, error) { return u.wait(target, patience) }

// askInVain is ask for a target that must stay silent.
func (u *uplink) askInVain(target string) {
	u.t.Helper()
	if rtt, err := u.wait(target, silence); err == nil {
		u.t.Errorf("%s by %s was answered in %v", target, u.link.Name, rtt)
	}
}

func (u *uplink) wait(target string, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(u.t.Context(), timeout)
	defer cancel()
	return u.Probe(ctx, u.link, parse(u.t, target))
}

// run starts a Runner on u and returns its verdicts. The channel is drained by await.
func (u *uplink) run(plan probe.Plan) <-chan probe.Verdict {
	u.t.Helper()
	r, err := probe.NewRunner(plan, u, nil, nil)
	labtest.Must(u.t, err)
	ctx, cancel := context.WithCancel(u.t.Context())
	verdicts := make(chan probe.Verdict)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx, u.link, func(v probe.Verdict) {
			select {
			case verdicts <- v:
			case <-ctx.Done():
			}
		})
	}()
	u.t.Cleanup(func() { cancel(); <-done })
	return verdicts
}

// await returns the first verdict that is known and has the wanted usability, and how long it took.
func await(t *testing.T, verdicts <-chan probe.Verdict, usable bool) (probe.Verdict, time.Duration) {
	t.Helper()
	began, limit := time.Now(), time.After(20*time.Second)
	for {
		select {
		case v := <-verdicts:
			if v.Known && v.Usable == usable {
				return v, time.Since(began)
			}
		case <-limit:
			t.Fatalf("no verdict with usable=%v within 20 s", usable)
		}
	}
}

// parse reads a target as the configuration writes it, but for the brackets that every address of IPv6 has.
func parse(t *testing.T, s string) probe.Target {
	t.Helper()
	u, err := url.Parse(s)
	labtest.Must(t, err)
	target := probe.Target{Kind: probe.Kind(u.Scheme)}
	target.Addr, _ = netip.ParseAddr(u.Hostname())
	usual := uint64(0)
	switch target.Kind {
	case probe.DNS:
		usual, target.Name = 53, strings.TrimPrefix(u.Path, "/")
		target.Answer, _ = netip.ParseAddr(u.Query().Get("answer"))
	case probe.HTTP:
		usual, target.Path, target.Expect = lab.PortHTTP, u.Path, cmp.Or(u.Query().Get("expect"), probe.NoContent)
		if !target.Addr.IsValid() {
			target.Name = u.Hostname()
		}
	}
	port, _ := strconv.ParseUint(u.Port(), 10, 16)
	target.Port = uint16(cmp.Or(port, usual))
	return target
}

// sockets counts the lines of a socket table in /proc, without its heading.
func (u *uplink) sockets(table string) int {
	u.t.Helper()
	var text []byte
	labtest.Must(u.t, u.host.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/" + table); return err }))
	return strings.Count(string(text), "\n") - 1
}

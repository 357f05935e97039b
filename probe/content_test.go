package probe

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// network answers the default plan as a fault has it.
type network struct {
	dead   map[Kind]bool
	wrong  map[Kind]*WrongError
	path   func(Target) bool
	delay  time.Duration
	probes map[Kind]int
	seen   func(Verdict)
}

// event is an answer that comes later; do tells the judge.
type event struct {
	at time.Time
	do func(now time.Time) bool
}

// ask begins a round, and returns the answers to come.
func (w *network) ask(j *Judge, plan Plan, now time.Time) (answers []event) {
	delay := max(w.delay, ms(20))
	n, asked := j.Begin(now)
	for i, target := range plan.Targets {
		if asked&(1<<i) == 0 {
			continue
		}
		w.probes[target.Kind]++
		switch wrong := w.wrong[target.Kind]; {
		case wrong != nil:
			answers = append(answers, event{now.Add(delay), func(now time.Time) bool { return j.Fail(now, n, i, wrong) }})
		case !w.dead[target.Kind] && (w.path == nil || w.path(target)):
			answers = append(answers, event{now.Add(delay), func(now time.Time) bool { return j.Reply(now, n, i, delay) }})
		}
	}
	return answers
}

// watch runs the default plan in a network for some time and returns the last verdict, and how often the uplink was not usable once
// it had been.
func watch(t *testing.T, w *network, plan Plan, lasts time.Duration) (last Verdict, lost int) {
	t.Helper()
	w.probes = make(map[Kind]int)
	j := NewJudge(plan, nil)
	var queue []event
	next, was := epoch, false
	for now := epoch; now.Before(epoch.Add(lasts)); now = now.Add(ms(5)) {
		decided := false
		kept := queue[:0]
		for _, e := range queue {
			if e.at.After(now) {
				kept = append(kept, e)
			} else {
				decided = e.do(now) || decided
			}
		}
		queue = kept
		decided = j.Expire(now) || decided
		if !now.Before(next) {
			queue = append(queue, w.ask(j, plan, now)...)
			next = now.Add(j.Pause())
		}
		if soon := now.Add(j.Pause()); soon.Before(next) {
			next = soon
		}
		if decided {
			last = j.Verdict()
			if was && !last.Usable {
				lost++
			}
			was = last.Usable
			if w.seen != nil {
				w.seen(last)
			}
		}
	}
	return last, lost
}

// What a probe of one kind finds while others answer.
func TestContent(t *testing.T) {
	lie := &WrongError{What: "10.0.0.1 for dns.google"}
	page := &WrongError{What: "another page", Portal: "http://10.0.0.1/login"}
	for name, c := range map[string]struct {
		network
		want Verdict
	}{
		"all well":            {network{}, Verdict{Usable: true}},
		"TestFault10 no ICMP": {network{dead: map[Kind]bool{ICMP: true}}, Verdict{Usable: true}},
		"TestFault11 DNS dead": {network{dead: map[Kind]bool{DNS: true}},
			Verdict{Usable: true, Degraded: true, Reason: "names are not resolved: no answer from 1.1.1.1, 8.8.8.8"}},
		"TestFault12 TCP dead": {network{dead: map[Kind]bool{TCP: true, HTTP: true}},
			Verdict{Usable: true, Degraded: true, Reason: "no TCP connection to 9.9.9.9:443, cp.cloudflare.com"}},
		"TestFault09 one TCP target dead": {network{dead: map[Kind]bool{TCP: true}}, Verdict{Usable: true}},
		"TestFault09 page dead":           {network{dead: map[Kind]bool{HTTP: true}}, Verdict{Usable: true}},
		"TestFault13 portal": {network{wrong: map[Kind]*WrongError{HTTP: page}},
			Verdict{Usable: true, Degraded: true, Portal: page.Portal, Reason: "cp.cloudflare.com: another page"}},
		"TestFault14 DNS lies": {network{wrong: map[Kind]*WrongError{DNS: lie}},
			Verdict{Usable: true, Degraded: true, Reason: "1.1.1.1: 10.0.0.1 for dns.google"}},
		"TestFault14 nothing but lies": {network{wrong: map[Kind]*WrongError{DNS: lie, HTTP: page}, dead: map[Kind]bool{ICMP: true, TCP: true}},
			Verdict{Reason: "1.1.1.1: 10.0.0.1 for dns.google; 8.8.8.8: 10.0.0.1 for dns.google; no reply from 1.1.1.1, 8.8.8.8, 9.9.9.9:443 (4 rounds)"}},
		"TestFault06 slow": {network{delay: 1500 * time.Millisecond}, Verdict{Usable: true, Degraded: true, Reason: "answers take 1.5s"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, lost := watch(t, &c.network, DefaultPlan(), 3*time.Minute)
			c.want.Known, c.want.RTT, c.want.Loss, c.want.Good = true, got.RTT, got.Loss, got.Good
			if got != c.want || lost > 0 {
				t.Errorf("got  %+v, not usable %d times\nwant %+v", got, lost, c.want)
			}
		})
	}
}

// TestFault05_LossIsNotSilence: where most probes are lost, those of one kind that are lost in a row do not show that others get through.
func TestFault05_LossIsNotSilence(t *testing.T) {
	plan, lossy := DefaultPlan(), 0
	plan.Interval, plan.Timeout = ms(50), ms(200)
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := network{path: func(Target) bool { return r.Float64() > 0.75 }, seen: func(v Verdict) {
			switch {
			case strings.Contains(v.Reason, "lost"):
				lossy++
			case v.Degraded:
				t.Errorf("seed %d: %s", seed, v.Reason)
			}
		}}
		watch(t, &w, plan, 5*time.Second)
	}
	if lossy == 0 {
		t.Error("the loss was not seen")
	}
}

// A page that is wrong once is asked for again before that is believed, but at the beginning it is believed at once.
func TestFault13_PortalIsConfirmed(t *testing.T) {
	j := NewJudge(DefaultPlan(), nil)
	page := &WrongError{What: "another page", Portal: "http://10.0.0.1/"}
	const content = 5
	n := begin(j, 0)
	if j.Reply(at(10), n, 0, ms(10)) {
		t.Error("usable before the content is known")
	}
	if !j.Fail(at(50), n, content, page) || j.Verdict().Portal == "" {
		t.Errorf("got %+v", j.Verdict())
	}
	n, asked := j.Begin(at(6000))
	if asked&(1<<content) == 0 {
		t.Fatal("nobody looked whether somebody has signed in")
	}
	j.Reply(at(6050), n, content, ms(50))
	if v := j.Verdict(); v.Portal != "" || v.Degraded {
		t.Errorf("got %+v", v)
	}
	n, _ = j.Begin(at(70_000))
	j.Reply(at(70_010), n, 0, ms(10))
	j.Fail(at(70_050), n, content, page)
	if v := j.Verdict(); v.Portal != "" {
		t.Errorf("believed after one answer: %+v", v)
	}
	n, asked = j.Begin(at(70_700))
	if asked&(1<<content) == 0 {
		t.Fatal("not asked again")
	}
	j.Reply(at(70_710), n, 0, ms(10))
	j.Fail(at(70_750), n, content, page)
	if v := j.Verdict(); v.Portal != page.Portal {
		t.Errorf("got %+v", v)
	}
}

// Content that does not come at all holds up nothing for longer than Timeout.
func TestContentIsNotWaitedForLong(t *testing.T) {
	j := NewJudge(DefaultPlan(), nil)
	n := begin(j, 0)
	j.Reply(at(10), n, 0, ms(10))
	if j.Expire(at(999)); j.Verdict().Known {
		t.Error("too soon")
	}
	if !j.Expire(at(1000)) || !j.Verdict().Usable {
		t.Errorf("got %+v", j.Verdict())
	}
	j = NewJudge(DefaultPlan(), nil)
	n = begin(j, 0)
	j.Reply(at(10), n, 0, ms(10))
	if !j.Fail(at(20), n, 5, errors.New("no address")) || !j.Verdict().Usable {
		t.Errorf("got %+v", j.Verdict())
	}
}

// What probes cost, by what each takes on an Ethernet both ways: 4 kbit/s with both families, 1 MB a day on metered links.
func TestBudget(t *testing.T) {
	bytes := map[Kind]int{ICMP: 100 + 140, DNS: 190 + 230, TCP: 270 + 350, HTTP: 1600 + 2000}
	day := func(plan Plan) (sum int) {
		w := &network{}
		watch(t, w, plan, time.Hour)
		for kind, n := range w.probes {
			sum += n * bytes[kind] * 24
		}
		return sum
	}
	rate, sparing := float64(day(DefaultPlan()))*8/86400, day(DefaultPlan().Sparing())
	t.Logf("%.0f bit/s; %d bytes a day when sparing", rate, sparing)
	if rate > 4000 || sparing > 900_000 {
		t.Error("probes cost too much")
	}
}

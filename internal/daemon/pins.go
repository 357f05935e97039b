package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"tapgw/api"
	"tapgw/internal/hostconf"
	"tapgw/internal/owner"
	"tapgw/policy"
	"tapgw/uplinks"
)

// pin has the sockets of a cgroup, which `tapgw exec` asked for, use one uplink alone.
type pin struct {
	Cgroup string `json:"cgroup"`
	Uplink string `json:"uplink"`
}

const (
	// pinRule is the name of the rules that pins make; those of the configuration have no spaces.
	pinRule = "tapgw exec"
	maxPins = 256
	// pinsKey is where the journal of changes keeps them, as their processes outlive a killed daemon.
	pinsKey = "pins"
)

// addPins puts the rules of pins before all others, the latest first, as one may begin within another.
func (d *Daemon) addPins(p *policy.Plan) {
	var rules []policy.Rule
	for _, one := range slices.Backward(d.pins) {
		group := policy.Group{
			Name: pinRule + " " + one.Uplink, Scheduler: policy.Default, Stickiness: policy.StickySession, WhenDown: policy.Refuse,
			Members: []policy.Member{{Name: one.Uplink}},
		}
		rules = append(rules, policy.Rule{
			Name: pinRule, Number: d.numbers.of(pinRule), Units: []string{one.Cgroup},
			Action: policy.Action{Group: len(p.Groups), Scheduler: group.Scheduler, Stickiness: group.Stickiness, WhenDown: group.WhenDown},
		})
		p.Groups = append(p.Groups, group)
	}
	p.Rules = append(rules, p.Rules...)
}

// pin moves a process into a cgroup of its own, whose sockets use one uplink.
func (d *Daemon) pin(name string, pid int) error {
	switch {
	case !slices.Contains(d.names(), name):
		return d.unknown(name, uplinks.ErrUnknown)
	case d.isPaused():
		return fmt.Errorf("%w: tapgw is paused, end that with `tapgw resume`", api.ErrConflict)
	case d.owners == nil || len(d.pins) >= maxPins:
		return fmt.Errorf("%w: the kernel does not tell whose sockets sessions are, or %d commands run so already", api.ErrConflict, maxPins)
	case !sameNetwork(pid):
		return fmt.Errorf("%w: the command would run in another network namespace than tapgw", api.ErrConflict)
	}
	group, err := d.owners.Confine(pid)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	d.tell(api.EventPin, name, "process "+strconv.Itoa(pid)+" and all that it starts use it alone")
	return d.setPins(append(slices.Clone(d.pins), pin{group, name}))
}

// setPins has the rules follow.
func (d *Daemon) setPins(pins []pin) error {
	d.pins = pins
	var kept any
	if len(pins) > 0 {
		kept = pins
	}
	return errors.Join(d.setPlan(d.plan(d.cfg())), d.host.Put(pinsKey, kept))
}

// releasePins forgets those whose processes have all ended.
func (d *Daemon) releasePins() {
	left := slices.DeleteFunc(slices.Clone(d.pins), func(p pin) bool { return d.owners.Released(p.Cgroup) })
	if len(left) < len(d.pins) {
		d.complain(d.setPins(left))
	}
}

// adoptPins takes over those of a killed daemon.
func (d *Daemon) adoptPins() error {
	pins, err := pinsLeft(d.host)
	if err != nil || len(pins) == 0 || d.owners == nil {
		return err
	}
	return d.setPins(pins)
}

func pinsLeft(host *hostconf.Guard) (pins []pin, err error) {
	_, err = host.Get(pinsKey, &pins)
	return pins, err
}

// dropPins puts the processes back where they were before.
func (d *Daemon) dropPins() error {
	if d.owners != nil {
		for _, p := range d.pins {
			d.owners.Release(p.Cgroup)
		}
	}
	return d.host.Put(pinsKey, nil)
}

// sameNetwork reports whether a process sees the network that the daemon does.
func sameNetwork(pid int) bool {
	own, err := os.Stat("/proc/self/ns/net")
	other, failed := os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/net")
	return err == nil && failed == nil && os.SameFile(own, other)
}

// dropPins takes back the cgroups of a killed daemon.
func (c *cleaner) dropPins(host *hostconf.Guard) error {
	pins, err := pinsLeft(host)
	if err != nil || len(pins) == 0 {
		return err
	}
	finder, err := owner.Open()
	if err != nil {
		return err
	}
	defer finder.Close()
	for _, p := range pins {
		if finder.Release(p.Cgroup) {
			c.note("removed", "cgroup", p.Cgroup)
		}
	}
	return host.Put(pinsKey, nil)
}

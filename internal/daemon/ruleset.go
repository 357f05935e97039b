package daemon

import (
	"context"
	"errors"
	"time"

	"tapgw/uplinks/nft"
)

// rulesShare is how many times as long as a look at changed rules took passes until the next: a ruleset may be large, and
// change all the time.
const rulesShare = 20

// ruleset is when the control loop looks at the rules of nftables.
type ruleset struct {
	next     time.Time // not before
	repaired time.Time // when ours were found deleted

	noMasqueradeV6 bool // the kernel cannot translate IPv6
}

// watchRules wakes the control loop when somebody changes rules of nftables. Where the kernel does not tell, the periodic
// look has to do.
func (d *Daemon) watchRules(ctx context.Context) error {
	w, err := nft.NewWatcher()
	if err == nil {
		err = w.Run(ctx, d.rulesChanged)
	}
	if err != nil {
		d.log.Debug("changes of the firewall are noticed half a second later", "error", err)
	}
	return nil
}

// takeRules looks at rules that changed, of whomever they are.
func (d *Daemon) takeRules(ctx context.Context) error {
	begun := time.Now()
	if wait := d.ruleset.next.Sub(begun); wait > 0 {
		time.AfterFunc(wait, func() { poke(d.rulesChanged) })
		return nil
	}
	changed, err := d.rules.Changed()
	if err != nil || !changed {
		return err
	}
	missing, err := d.checkRules(begun, false)
	stale := d.shortcutIsStale() || d.trackingIsStale()
	d.ruleset.next = begun.Add(min((rulesShare+1)*time.Since(begun), checkEvery))
	if missing || stale {
		err = errors.Join(err, d.converge(ctx))
	}
	return errors.Join(err, d.followBypass(stale))
}

// checkRules reports whether rules of ours are missing. To put them back is the next converge's, and no more often than
// without messages: whoever deletes them then may do so again at once.
func (d *Daemon) checkRules(now time.Time, everything bool) (missing bool, err error) {
	if now.Sub(d.ruleset.repaired) < rivalPause {
		return false, nil
	}
	if missing, err = d.rules.Check(everything); missing {
		d.ruleset.repaired = now
		d.repaired("nftables: rules deleted by someone")
	}
	return missing, err
}

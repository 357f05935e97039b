package daemon

import "time"

const (
	rivalFree  = 3                   // repairs made at once before somebody is taken for a rival
	rivalPause = checkEvery * 9 / 10 // before another repair from then on: it is the next check's
	rivalLeft  = 5 * time.Second     // without a repair, after which the rival has left
)

// rivalAdvice is logged once per rival.
const rivalAdvice = "someone keeps removing our routes or rules: find out who manages them (NetworkManager, systemd-networkd, " +
	"a DHCP or VPN client) and have it leave those of protocol 73 alone"

// rivalry keeps us from fighting with all our strength against a program that undoes what we do. The zero value is peace.
type rivalry struct {
	last    time.Time
	repairs int
}

// repaired notes that something had to be put back, and reports whether that has shown a rival.
func (r *rivalry) repaired(now time.Time) (rival bool) {
	if now.Sub(r.last) > rivalLeft {
		r.repairs = 0
	}
	r.last = now
	r.repairs++
	return r.repairs == rivalFree
}

// mustWait reports whether the next repair has to wait.
func (r *rivalry) mustWait(now time.Time) bool {
	return r.repairs >= rivalFree && now.Sub(r.last) < rivalPause
}

package policy

// Reason says in one byte why a session uses what it uses, so that a session record can keep it.
type Reason uint8

// The reasons. Numbers are stable: records outlive the process that wrote them.
const (
	ReasonUnknown    Reason = iota // not recorded
	ReasonScheduler                // the scheduler's choice among several
	ReasonOnly                     // the only usable candidate
	ReasonOnlyInTier               // the only usable candidate of the lowest tier; others wait in higher tiers
	ReasonMapping                  // the inside endpoint's mapping lives there (RFC 4787 REQ-1)
	ReasonRebind                   // moved there after its first choice failed
	ReasonRelated                  // announced by a session of that uplink, as FTP announces where data go
	ReasonCompanion                // another session of the same hosts is there
	ReasonNextGroup                // the scheduler's choice in another group, as its own is down
	ReasonSticky                   // the client's sessions that it belongs to are there
	ReasonResolver                 // a resolver of its ISP is asked
)

var reasonTexts = [...]string{
	ReasonUnknown:    "unknown",
	ReasonScheduler:  "chosen by the scheduler",
	ReasonOnly:       "only candidate",
	ReasonOnlyInTier: "only candidate of the preferred tier",
	ReasonMapping:    "endpoint's mapping",
	ReasonRebind:     "rebound after failure",
	ReasonRelated:    "announced by a control session",
	ReasonCompanion:  "another session of the same hosts",
	ReasonNextGroup:  "its group is down, chosen from the next",
	ReasonSticky:     "where the client's sessions before are",
	ReasonResolver:   "resolver of its ISP",
}

// String is the reason as a clause for people; unknown numbers are "unknown".
func (r Reason) String() string {
	if int(r) >= len(reasonTexts) {
		return reasonTexts[ReasonUnknown]
	}
	return reasonTexts[r]
}

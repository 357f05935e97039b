package api

import (
	"encoding/json"
	"net/netip"
)

// Why is what would become of a session, and why: GET /v1/why.
type Why struct {
	Proto      string         `json:"proto"`
	Inside     netip.AddrPort `json:"inside"` // port 0: one that is not in use
	Remote     netip.AddrPort `json:"remote"`
	Host       bool           `json:"host"`        // Inside is this host itself
	Outcome    string         `json:"outcome"`     // one of the Outcome constants; readers must accept others
	Uplink     string         `json:"uplink"`      // name, "" when refused
	Reason     string         `json:"reason"`      // a clause
	Rules      []WhyRule      `json:"rules"`       // in their order, up to the one that matches; never null
	Rule       string         `json:"rule"`        // name of that, "" for none
	Group      string         `json:"group"`       // of the uplinks below
	AskedFirst string         `json:"asked_first"` // the group that is down, where Group is asked instead of it; else ""
	Scheduler  string         `json:"scheduler"`
	Stickiness string         `json:"stickiness"` // that counts for this session: session, site or client
	// OnUplinkDown is what becomes of a TCP session when Uplink is down: reset, move-if-unanswered or keep; "" for others.
	OnUplinkDown string      `json:"on_uplink_down"`
	Uplinks      []WhyUplink `json:"uplinks"` // of the group; never null
}

// The outcomes that Why.Outcome names.
const (
	OutcomePlaced  = "placed"  // a new session by Uplink, as Reason says
	OutcomeSession = "session" // there is one already
	OutcomeMapping = "mapping" // the inside endpoint is in use, and keeps its uplink
	OutcomeRelated = "related" // a control session announced it
	OutcomeDirect  = "direct"  // leaves with the address that it has, by a rule
	OutcomeOwn     = "own"     // leaves with the address that it has, which is the uplink's
	OutcomeRefused = "refused" // the sender is told
)

// WhyRule is a rule that was looked at.
type WhyRule struct {
	Name    string `json:"name"`
	Matches bool   `json:"matches"`
	Fails   string `json:"fails"` // the first of its keys that does not match, "" when all do
}

// WhyUplink is an uplink of the group.
type WhyUplink struct {
	Name      string  `json:"name"`
	Tier      int     `json:"tier"` // in the group
	State     string  `json:"state"`
	Candidate bool    `json:"candidate"`  // the scheduler may choose it; else the numbers below are 0
	ExpectBps float64 `json:"expect_bps"` // bits per second that one more session may get
	Load      float64 `json:"load"`       // 0–1 of capacity
	Sessions  int     `json:"sessions"`
	RTTMs     float64 `json:"rtt_ms"`
	Chosen    bool    `json:"chosen"`
}

// MarshalJSON keeps lists from becoming null, and numbers that JSON cannot express from spoiling the whole answer.
func (w Why) MarshalJSON() ([]byte, error) {
	type plain Why
	if w.Rules == nil {
		w.Rules = []WhyRule{}
	}
	if w.Uplinks == nil {
		w.Uplinks = []WhyUplink{}
	}
	for i := range w.Uplinks {
		u := &w.Uplinks[i]
		finite(&u.ExpectBps, &u.Load, &u.RTTMs)
	}
	return json.Marshal(plain(w))
}

package api

import "time"

// Usage is what an uplink has carried in its billing period, in both directions: all bytes of its interface.
type Usage struct {
	UsedBytes uint64    `json:"used_bytes"`
	CapBytes  uint64    `json:"cap_bytes"` // 0 without a cap
	ResetsAt  time.Time `json:"resets_at"` // when the next period begins
	State     string    `json:"state"`     // one of the Usage constants
}

// UplinkUsage is an element of the answer to GET /v1/usage.
type UplinkUsage struct {
	Uplink   string `json:"uplink"` // name
	Metered  bool   `json:"metered"`
	Sessions int    `json:"sessions"` // that use it now
	Usage
}

// The states of a Usage.
const (
	UsageOK      = "ok"      // or there is no cap
	UsageWarning = "warning" // the share of the cap that is to be warned of was used
	UsageStopped = "stopped" // the share that is allowed was used: no new sessions until ResetsAt
	UsageAllowed = "allowed" // ... but the uplink was switched on nevertheless, until ResetsAt
)

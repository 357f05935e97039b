package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Bounds of a pause.
const (
	DefaultPause = 5 * time.Minute
	MaxPause     = 24 * time.Hour
)

// Prefer has new sessions use the uplink called name while it is up, unless a rule says otherwise, until the daemon ends; "" ends
// that. ErrUnknownUplink when there is none.
func (c *Client) Prefer(ctx context.Context, name string) error {
	return c.post(ctx, "/v1/prefer?uplink="+url.QueryEscape(name))
}

// Metered says whether the data of an uplink cost money.
type Metered string

// The values of Metered.
const (
	MeteredOn   Metered = "on"
	MeteredOff  Metered = "off"
	MeteredAuto Metered = "auto" // as the configuration says
)

// SetMetered overrides what the configuration says of the uplink called name, until the daemon ends; ErrUnknownUplink when there is
// none.
func (c *Client) SetMetered(ctx context.Context, name string, m Metered) error {
	return c.post(ctx, uplinkPath(name, "metered")+"?mode="+url.QueryEscape(string(m)))
}

// Pause has traffic leave by the host's own routes for so long, at most MaxPause.
func (c *Client) Pause(ctx context.Context, d time.Duration) error {
	return c.post(ctx, "/v1/pause?seconds="+strconv.FormatFloat(d.Seconds(), 'f', -1, 64))
}

// Resume ends a pause before its time.
func (c *Client) Resume(ctx context.Context) error { return c.post(ctx, "/v1/resume") }

// Pin has the calling process, and all that it starts from now on, use the uplink called name alone for new sessions;
// ErrUnknownUplink when there is none.
func (c *Client) Pin(ctx context.Context, name string) error {
	return c.post(ctx, uplinkPath(name, "pin"))
}

func uplinkPath(name, verb string) string { return "/v1/uplinks/" + url.PathEscape(name) + "/" + verb }

// Probe is what the targets of an uplink answered when they were asked just now.
type Probe struct {
	Uplink  string        `json:"uplink"`  // name
	Answers []ProbeAnswer `json:"answers"` // of each target and family; never null
}

// ProbeAnswer is how a target answered by an uplink.
type ProbeAnswer struct {
	Family string  `json:"family"` // FamilyIPv4 or FamilyIPv6
	Target string  `json:"target"` // as in the configuration
	RTTMs  float64 `json:"rtt_ms"` // milliseconds, 0 unless it answered
	Error  string  `json:"error"`  // why it did not, a clause; "" when it did
}

// Probe asks all targets by the uplink called name, or by every uplink for "", and waits for their answers; ErrUnknownUplink when
// there is none. The list is never nil.
func (c *Client) Probe(ctx context.Context, name string) ([]Probe, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list := []Probe{}
	err := c.call(ctx, http.MethodPost, "/v1/probe?uplink="+url.QueryEscape(name), maxAnswer, &list)
	return list, err
}

// MarshalJSON keeps the list from becoming null, and numbers that JSON cannot express from spoiling the whole answer.
func (p Probe) MarshalJSON() ([]byte, error) {
	type plain Probe
	p.Answers = append([]ProbeAnswer{}, p.Answers...)
	for i := range p.Answers {
		finite(&p.Answers[i].RTTMs)
	}
	return json.Marshal(plain(p))
}

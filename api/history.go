package api

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
)

// The spans of a History.
const (
	SpanLive = "live" // 15 minutes, by the second
	SpanHour = "hour" // 60 minutes, by the minute
	SpanDay  = "day"  // 24 hours, by the minute
)

// Spans are all of them.
func Spans() []string { return []string{SpanLive, SpanHour, SpanDay} }

// History is what the uplinks carried, and how well they were: GET /v1/history.
type History struct {
	From    time.Time       `json:"from"` // of the first value of each series
	StepS   int64           `json:"step_s"`
	Uplinks []HistoryUplink `json:"uplinks"` // never null
}

// HistoryUplink is one uplink in a History. All its series are of the same length.
type HistoryUplink struct {
	Name   string        `json:"name"`
	RxBps  Series        `json:"rx_bps"`
	TxBps  Series        `json:"tx_bps"`
	Load   Series        `json:"load"`
	RTTMs  Series        `json:"rtt_ms"`
	Loss   Series        `json:"loss"`
	States []StateChange `json:"states"` // in their order; never null
}

// StateChange says from when on an uplink was in a state.
type StateChange struct {
	At    time.Time `json:"at"`
	State string    `json:"state"` // "" from when on nothing is known
}

// Series is values at regular times; NaN, null on the wire, where nothing is known.
type Series []float64

// seriesDigits is how exact a value of a series is on the wire.
const seriesDigits = 4

// MarshalJSON writes short numbers, as there are many.
func (s Series) MarshalJSON() ([]byte, error) {
	text := make([]byte, 0, 2+6*len(s))
	text = append(text, '[')
	for i, v := range s {
		if i > 0 {
			text = append(text, ',')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			text = append(text, "null"...)
		} else {
			text = strconv.AppendFloat(text, v, 'g', seriesDigits, 64)
		}
	}
	return append(text, ']'), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Series) UnmarshalJSON(text []byte) error {
	var values []*float64
	if err := json.Unmarshal(text, &values); err != nil {
		return err
	}
	*s = make(Series, len(values))
	for i, v := range values {
		if (*s)[i] = math.NaN(); v != nil {
			(*s)[i] = *v
		}
	}
	return nil
}

// MarshalJSON keeps lists from becoming null.
func (h History) MarshalJSON() ([]byte, error) {
	type plain History
	if h.Uplinks == nil {
		h.Uplinks = []HistoryUplink{}
	}
	return json.Marshal(plain(h))
}

// MarshalJSON keeps lists from becoming null.
func (u HistoryUplink) MarshalJSON() ([]byte, error) {
	type plain HistoryUplink
	if u.States == nil {
		u.States = []StateChange{}
	}
	return json.Marshal(plain(u))
}

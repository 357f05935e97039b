package daemon

import "time"

const (
	complainEvery = time.Minute // about the same
	maxComplaints = 64          // different ones within that time, beyond which nothing is logged
)

// complaints remembers what was logged lately, so that problems which come back every few milliseconds, or take turns, do
// not fill the log. The zero value has heard of none.
type complaints struct{ told map[string]time.Time }

// fresh reports whether text is to be logged now.
func (c *complaints) fresh(text string, now time.Time) bool {
	for known, at := range c.told {
		if now.Sub(at) >= complainEvery {
			delete(c.told, known)
		}
	}
	if _, known := c.told[text]; known || len(c.told) >= maxComplaints {
		return false
	}
	if c.told == nil {
		c.told = make(map[string]time.Time)
	}
	c.told[text] = now
	return true
}

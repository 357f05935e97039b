package configs

import (
	"math"
	"strconv"
	"strings"
)

// Metered is what is known of an uplink whose data cost money; the zero value of one that is not metered.
type Metered struct {
	Enabled    bool
	Cap        uint64 // bytes of both directions in a billing period, 0 for no cap
	BillingDay int    // of the month, on which a period begins; the last day of shorter months
	Warn, Stop Share  // of Cap
}

// Share is a part of the cap in percent, or ShareOff.
type Share int

// ShareOff is never reached.
const ShareOff Share = 0

// defaultMetered is what a block metered starts from.
var defaultMetered = Metered{BillingDay: 1, Warn: 80, Stop: 100}

// meteredTier is the tier of a metered uplink whose tier is not given: it is used only when no other works.
const meteredTier = 1

const meteredKey = "metered"

// meteredFields are the keys below metered; the first one is what a plain true or false stands for.
var meteredFields = []field[Uplink]{
	short(meteredField("enabled", func(m *Metered) *bool { return &m.Enabled }, parseBool, strconv.FormatBool, Metered.plain)),
	meteredField("cap", func(m *Metered) *uint64 { return &m.Cap }, parseCap, formatSize, func(m Metered) bool { return m.Cap > 0 }),
	meteredField("billing_day", func(m *Metered) *int { return &m.BillingDay }, within(1, 31), strconv.Itoa, Metered.detailed),
	meteredField("warn", func(m *Metered) *Share { return &m.Warn }, parseShare, formatShare, Metered.detailed),
	meteredField("stop", func(m *Metered) *Share { return &m.Stop }, parseShare, formatShare, Metered.detailed),
}

// meteredField is a key that is shown only for an uplink that is metered, and where it says something.
func meteredField[V comparable](key string, at func(*Metered) *V, parse func(string) (V, error), format func(V) string, shown func(Metered) bool) field[Uplink] {
	f := optional(meteredKey+"."+key, func(u *Uplink) *V { return at(&u.Metered) }, parse, format)
	f.get = func(u *Uplink) []string {
		if !u.Metered.Enabled || !shown(u.Metered) {
			return []string{""}
		}
		return []string{format(*at(&u.Metered))}
	}
	return f
}

// plain reports whether m says no more than that the uplink is metered.
func (m Metered) plain() bool {
	m.Enabled = false
	return m == defaultMetered
}

func (m Metered) detailed() bool { return !m.plain() }

// settleMetered gives what was left out of a block metered the value that it has then.
func (l *loader) settleMetered(u *Uplink, path string) {
	given := func(key string) bool { return l.doc.lines[join(path, key)] > 0 }
	if !given(meteredKey + ".enabled") {
		for _, f := range meteredFields {
			u.Metered.Enabled = u.Metered.Enabled || given(f.key)
		}
	}
	if !u.Metered.Enabled {
		u.Metered = Metered{}
	} else if !given("tier") {
		u.Tier = meteredTier
	}
}

// checkMetered warns of thresholds that make no sense.
func (l *loader) checkMetered(u Uplink, path string) {
	key, m := join(path, meteredKey), u.Metered
	if !l.sound(key+".cap", key+".warn", key+".stop") {
		return
	}
	switch {
	case m.Stop != ShareOff && m.Warn > m.Stop:
		l.warn(key+".warn", "warn earlier, or write warn: off", "at %s the uplink has stopped already", formatShare(m.Warn))
	case m.Enabled && m.Cap == 0 && (m.Warn != defaultMetered.Warn || m.Stop != defaultMetered.Stop):
		l.warn(key, "add for example cap: 20GB", "thresholds have no effect without a cap")
	}
}

// Bounds of a cap in bytes.
const (
	minSize = 1e6
	maxSize = 1e15
)

// sizeUnits go from large to small. They are decimal, as in ISPs' bills.
var sizeUnits = []struct {
	name  string
	bytes uint64
}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// ParseSize reads an amount of data such as 20GB, 1.5TB or 500 MB, in bytes.
func ParseSize(s string) (uint64, error) {
	bad := faultf("write for example 20GB, 1.5TB or 500MB", "%s is not an amount of data", quote(s))
	unit := strings.TrimLeft(s, "0123456789.")
	number, err := strconv.ParseFloat(s[:len(s)-len(unit)], 64)
	if err != nil {
		return 0, bad
	}
	for _, u := range sizeUnits {
		if !strings.EqualFold(strings.TrimSpace(unit), u.name) {
			continue
		}
		bytes := math.Round(number * float64(u.bytes))
		if bytes > maxSize {
			return 0, faultf("use at most 1000TB", "%s is out of range", quote(s))
		}
		return uint64(bytes), nil
	}
	return 0, bad
}

func parseCap(s string) (uint64, error) {
	bytes, err := ParseSize(s)
	if err == nil && bytes < minSize {
		return 0, faultf(rangeFix("1MB", "1000TB"), "%s is out of range", quote(s))
	}
	return bytes, err
}

// formatSize is the shortest exact form that ParseSize reads.
func formatSize(bytes uint64) string {
	for _, u := range sizeUnits {
		if whole, rest := bytes/u.bytes, bytes%u.bytes; whole > 0 && rest%max(u.bytes/1000, 1) == 0 {
			return strconv.FormatFloat(float64(whole)+float64(rest)/float64(u.bytes), 'f', -1, 64) + u.name
		}
	}
	return "0B"
}

// maxShare leaves room for those whose ISP only slows them down behind the cap.
const maxShare = 200

// parseShare reads a percentage or off.
func parseShare(s string) (Share, error) {
	if s == "off" {
		return ShareOff, nil
	}
	digits, isShare := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || strings.HasPrefix(s, "+"):
		return 0, faultf("write for example 80%, or off", "%s is not a share of the cap", quote(s))
	case !isShare:
		return 0, faultf("write "+digits+"%", "%s has no unit", quote(s))
	case n < 1 || n > maxShare:
		return 0, faultf(rangeFix("1%", strconv.Itoa(maxShare)+"%")+", or off", "%s is out of range", quote(s))
	}
	return Share(n), nil
}

func formatShare(s Share) string {
	if s == ShareOff {
		return "off"
	}
	return strconv.Itoa(int(s)) + "%"
}

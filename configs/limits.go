package configs

import "strconv"

// maxLimit is more sessions than a table can have.
const maxLimit = 4_000_000

// parseLimit reads off or a number.
func parseLimit(s string) (Limit, error) {
	if s == "off" {
		return LimitOff, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, faultf("use off, or 1 to "+strconv.Itoa(maxLimit), "%s is no limit", quote(s))
	}
	return Limit(n), nil
}

// parseLimitOrAuto is parseLimit where auto has a meaning.
func parseLimitOrAuto(s string) (Limit, error) {
	if s == "auto" {
		return LimitAuto, nil
	}
	return parseLimit(s)
}

func formatLimit(l Limit) string {
	switch l {
	case LimitOff:
		return "off"
	case LimitAuto:
		return "auto"
	}
	return strconv.Itoa(int(l))
}

// fewSessions is more than any one device at home ever has.
const fewSessions = 4096

// Sessions is SessionsPerHost as a number for a family that has room for so many sessions, 0 for no limit.
func (l Limits) Sessions(room int) int {
	if l.SessionsPerHost == LimitAuto {
		return max(room/4, fewSessions)
	}
	return int(l.SessionsPerHost)
}

package usage

import (
	"fmt"
	"strconv"
)

// Amount is bytes for people: three digits at most, with the decimal unit that ISPs bill in.
func Amount(bytes uint64) string {
	v, unit := float64(bytes), 0
	for ; v >= 999.5 && unit < len(units)-1; unit++ {
		v /= 1000
	}
	digits := 0
	if v < 99.95 {
		digits = 1
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if whole := strconv.FormatFloat(v, 'f', 0, 64); text == whole+".0" {
		text = whole
	}
	return text + " " + units[unit]
}

var units = [...]string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}

// Text says that a share of the cap was used, in one clause.
func (u Usage) Text(percent int) string {
	return fmt.Sprintf("%d %% of %s used, until %s", percent, Amount(u.Cap), u.Ends.Format("2 Jan"))
}

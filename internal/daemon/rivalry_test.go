package daemon

import (
	"testing"
	"time"
)

func TestRivalry(t *testing.T) {
	var r rivalry
	now := time.Unix(1000, 0)
	repairs, rivals := 0, 0
	for range 1000 { // ten seconds with somebody who is faster than we are
		if !r.mustWait(now) {
			if r.repaired(now) {
				rivals++
			}
			repairs++
		}
		now = now.Add(10 * time.Millisecond)
	}
	if repairs < 10 || repairs > 30 || rivals != 1 {
		t.Errorf("%d repairs in 10 s, %d rivals", repairs, rivals)
	}
	now = now.Add(rivalLeft + time.Second)
	for range rivalFree {
		if r.mustWait(now) {
			t.Error("a single repair waits")
		}
		r.repaired(now)
	}
	if !r.mustWait(now) {
		t.Error("the rival is back, and we are not patient")
	}
}

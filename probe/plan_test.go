package probe

import (
	"errors"
	"testing"
	"time"
)

func TestDefaultPlanIsValid(t *testing.T) {
	if err := DefaultPlan().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestPlanValidate(t *testing.T) {
	for name, spoil := range map[string]func(*Plan){
		"interval zero":       func(p *Plan) { p.Interval = 0 },
		"interval too long":   func(p *Plan) { p.Interval = 2 * MaxInterval },
		"timeout zero":        func(p *Plan) { p.Timeout = 0 },
		"timeout too long":    func(p *Plan) { p.Interval, p.Timeout = MaxInterval, MaxTimeout+1 },
		"too many overlap":    func(p *Plan) { p.Interval, p.Timeout = MinInterval, time.Second },
		"no target":           func(p *Plan) { p.Targets = nil },
		"too many targets":    func(p *Plan) { p.Targets = make([]Target, MaxTargets+1) },
		"empty target":        func(p *Plan) { p.Targets[0] = Target{} },
		"repeated target":     func(p *Plan) { p.Targets[1] = p.Targets[0] },
		"quorum zero":         func(p *Plan) { p.Quorum = 0 },
		"quorum out of reach": func(p *Plan) { p.Quorum = len(p.Targets) + 1 },
		"fall zero":           func(p *Plan) { p.Fall = 0 },
		"rise negative":       func(p *Plan) { p.Rise = -1 },
		"rise unbounded":      func(p *Plan) { p.Rise = MaxRounds + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			p := DefaultPlan()
			spoil(&p)
			if err := p.Validate(); !errors.Is(err, ErrPlan) {
				t.Errorf("got %v, want ErrPlan", err)
			}
			if _, err := NewRunner(p, nil, nil, nil); !errors.Is(err, ErrPlan) {
				t.Errorf("NewRunner: got %v, want ErrPlan", err)
			}
		})
	}
}

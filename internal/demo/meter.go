package demo

import (
	"fmt"
	"time"
)

// meter turns readings into the mean rates of the last second.
type meter struct{ readings []reading }

// reading is what has been counted until a time.
type reading struct {
	at       time.Time
	bytes    [count]uint64
	sessions [count]uint64
}

func (d *downloads) read() reading {
	r := reading{at: time.Now()}
	for i := range count {
		r.bytes[i], r.sessions[i] = d.bytes[i].Load(), d.sessions[i].Load()
	}
	return r
}

func (m *meter) rows(r reading) []row {
	rows := make([]row, count)
	for i, bps := range m.rates(r) {
		rows[i] = row{title: titles[i], share: bps / capacities[i], figure: rate(bps), note: sessions(int(r.sessions[i]))}
	}
	return rows
}

// rates adds a reading and returns bits per second since the oldest within the window.
func (m *meter) rates(r reading) (bps [count]float64) {
	m.readings = append(m.readings, r)
	for r.at.Sub(m.readings[0].at) > window {
		m.readings = m.readings[1:]
	}
	oldest := m.readings[0]
	seconds := r.at.Sub(oldest.at).Seconds()
	if seconds <= 0 {
		return bps
	}
	for i := range bps {
		bps[i] = float64(r.bytes[i]-oldest.bytes[i]) * 8 / seconds
	}
	return bps
}

// rows shows how many new sessions each uplink got in the last second.
func (v *visits) rows(cut bool) func(now time.Time) []row {
	return func(now time.Time) []row {
		list := v.all()
		recent, _ := tally(list, now.Add(-window), time.Time{})
		all, _ := tally(list, time.Time{}, time.Time{})
		rows := make([]row, count)
		for i := range rows {
			share := float64(recent[i]) * float64(visitEvery) / float64(window)
			rows[i] = row{title: titles[i], share: share, figure: fmt.Sprintf("%d new/s", recent[i]), note: sessions(all[i])}
		}
		if cut {
			rows[first].cut, rows[first].note = true, rows[first].note+", cut"
		}
		return rows
	}
}

func sessions(n int) string { return fmt.Sprintf("%d sessions", n) }

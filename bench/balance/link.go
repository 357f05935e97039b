package main

import (
	"container/heap"

	"tapgw/uplinks"
)

// flow is one transfer.
type flow struct {
	born, size float64 // seconds, bits
	end        float64 // of service: the link's service per flow at which it is over
	counts     bool    // not of the warm-up
}

// queue is flows by what is left of them.
type queue []*flow

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].end < q[j].end }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(f any)        { *q = append(*q, f.(*flow)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	f := (*q)[last]
	*q = (*q)[:last]
	return f
}

// link is an uplink whose flows share what it carries equally (processor sharing), as TCP's do in the long run.
type link struct {
	capacity float64 // bits per second
	foreign  float64 // bits per second of it that traffic which is not ours takes
	idle     int     // sessions that carry next to nothing
	down     bool

	now     float64
	service float64 // bits that each flow there would have got since the start
	flows   queue
	ours    float64 // bits carried of flows
	others  float64 // bits carried of foreign traffic
}

// share is what each flow gets, bits per second.
func (l *link) share() float64 {
	if len(l.flows) == 0 || l.down {
		return 0
	}
	return (l.capacity - l.foreign) / float64(len(l.flows))
}

// advance carries what there is until a time.
func (l *link) advance(now float64) {
	elapsed, share := now-l.now, l.share()
	l.service += share * elapsed
	l.ours += share * elapsed * float64(len(l.flows))
	l.others += min(l.foreign, l.capacity) * elapsed
	l.now = now
}

// next is when the flow with the least to do is over.
func (l *link) next() (at float64, ok bool) {
	share := l.share()
	if share == 0 {
		return 0, false
	}
	return l.now + max(0, l.flows[0].end-l.service)/share, true
}

func (l *link) add(f *flow, left float64) {
	f.end = l.service + left
	heap.Push(&l.flows, f)
}

func (l *link) pop() *flow { return heap.Pop(&l.flows).(*flow) }

// unfinished is the bits that are still to be carried.
func (l *link) unfinished() (bits float64) {
	for _, f := range l.flows {
		bits += f.end - l.service
	}
	return bits
}

// streams is what the session table would tell of the flows.
func (l *link) streams() uplinks.Streams {
	s := uplinks.Streams{Active: len(l.flows), Bytes: uint64(l.ours / 8)}
	for _, f := range l.flows {
		if age := l.now - f.born; age < 1 {
			s.New++
		} else {
			s.Steady += (f.size - (f.end - l.service)) / age
		}
	}
	return s
}

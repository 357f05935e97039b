package main

import (
	"context"
	"slices"
	"strings"
	"time"
)

// settings say how long to measure.
type settings struct {
	rounds      int
	warmUp      time.Duration // of each measurement, not counted
	bulk        time.Duration
	flood       time.Duration
	connections time.Duration
	fill        time.Duration // for which downloads share shaped uplinks
	samples     int           // of connections' latency
	echoes      int           // samples of packets' latency
	few         flows         // whose bytes per session are measured
	crowd       flows         // through which packets are measured
	many        flows         // whose memory is measured
}

var (
	thorough = settings{rounds: 5, warmUp: 300 * time.Millisecond, bulk: 2 * time.Second, flood: 1500 * time.Millisecond,
		connections: 3 * time.Second, fill: 5 * time.Second, samples: 400, echoes: 5000,
		few: flows{100_000, 1}, crowd: flows{20_000, 50}, many: flows{20_000, 100}}
	quick = settings{rounds: 1, warmUp: 50 * time.Millisecond, bulk: 200 * time.Millisecond, flood: 200 * time.Millisecond,
		connections: 200 * time.Millisecond, fill: 200 * time.Millisecond, samples: 20, echoes: 50,
		few: flows{10_000, 1}, crowd: flows{400, 50}, many: flows{400, 100}}
)

// measure loads a peer and returns one value for each measured line of its task.
type measure func(ctx context.Context, p *peer, s settings) ([]float64, error)

type (
	// task is one measurement of one peer.
	task struct {
		name    string
		on      []string // the peers
		room    func(settings) room
		once    bool // on a fresh peer of its own, not in rounds
		measure measure
		lines   []line
	}
	// line is one figure of the report.
	line struct {
		label, unit string
		bars        map[string]bar // by peer
		less        bool           // is better
		absolute    bool           // bars are for the figure itself, not for its ratio to another peer's
		beyond      string         // label of the line of which this is what exceeds routed's figure; not measured
	}
	// bar is the ratio that is required, and the one aimed at, 0 for none.
	bar struct{ required, aim float64 }
)

// Which peers a task is for.
var (
	onTapgw     = []string{nameShortcut, namePlain, nameUserspace}
	onGateways  = append([]string{nameKernel, nameKernelRules}, onTapgw...)
	onKernel    = []string{nameKernel, nameKernelRules, nameShortcut, namePlain}
	onLight     = append([]string{nameRedirect}, onKernel...)
	onLightHost = append([]string{nameRouted}, onKernel...)
	onLAN       = append([]string{nameRedirect}, onGateways...)
	onAll       = append([]string{nameRouted}, onLAN...)
	onMemory    = []string{nameKernel, nameShortcut, nameUserspace}
	onAllMemory = []string{nameShortcut, nameUserspace}
)

// watched is for a gateway too that people look at.
func watched(on []string) []string { return append([]string{nameWatched}, on...) }

// The ratios that the project promises. The redirect's is that of tapgw-shortcut to it.
var (
	barLimit   = bar{0.85, 0.9}
	barWatched = bar{0.95, 0}
	bulkLAN    = map[string]bar{nameShortcut: {1.1, 1.3}, nameWatched: barWatched}
	bulkHost   = map[string]bar{nameShortcut: {1.05, 1.2}, namePlain: {1.05, 1.2}}
	bulkCopied = map[string]bar{nameUserspace: {0.6, 0}}
	packets    = map[string]bar{nameShortcut: {1.5, 2}, namePlain: {1.15, 1.4}, nameUserspace: {0.6, 0}, nameRedirect: barLimit, nameWatched: barWatched}
	someFlows  = map[string]bar{nameUserspace: {0.6, 0}}
	newConns   = map[string]bar{nameShortcut: {1.1, 1.3}, namePlain: {1.1, 1.3}, nameUserspace: {0.85, 0}, nameWatched: barWatched}
	added      = map[string]bar{nameShortcut: {1, 0.8}, namePlain: {1, 0.8}}
	filled     = map[string]bar{nameShortcut: {0.95, 0}, nameUserspace: {0.95, 0}}
	crowdShare = map[string]bar{nameShortcut: {0.7, 0.85}, namePlain: {0.7, 0.85}}
	wholeMiB   = map[string]bar{nameShortcut: {256, 220}}
)

func busyRoom(settings) room    { return room{family: ipv4, sessions: busySessions} }
func busyRoom6(settings) room   { return room{family: ipv6, sessions: busySessions} }
func fewRoom(settings) room     { return room{family: ipv4, sessions: tableSize} }
func crowdRoom(s settings) room { return room{family: ipv4, sessions: s.crowd.count() * 11 / 10} }
func manyRoom(s settings) room  { return room{family: ipv4, sessions: s.many.count() + spare} }

var tasks = []task{
	{"memory", onMemory, fewRoom, true, sessionBytes, []line{{label: "session, added", unit: "B"}, {label: "session, of all memory", unit: "B"}}},
	{"whole-memory", onAllMemory, manyRoom, true, wholeMemory,
		[]line{{label: "2,000,000 sessions", unit: "MiB", bars: wholeMiB, less: true, absolute: true}}},
	{"bulk-lan-up", onLAN, busyRoom, false, bulk{}.measure, []line{{label: "TCP LAN→Internet", unit: "Gbit/s", bars: bulkCopied}}},
	{"bulk-lan-down", onLAN, busyRoom, false, bulk{down: true}.measure, []line{{label: "TCP Internet→LAN", unit: "Gbit/s", bars: bulkCopied}}},
	{"bulk-host-up", onGateways, busyRoom, false, bulk{fromHost: true}.measure, []line{{label: "TCP host→Internet", unit: "Gbit/s", bars: bulkCopied}}},
	{"bulk-host-down", onGateways, busyRoom, false, bulk{down: true, fromHost: true}.measure, []line{{label: "TCP Internet→host", unit: "Gbit/s", bars: bulkCopied}}},
	{"light-lan-up", watched(onLight), busyRoom, false, bulk{light: true}.measure,
		[]line{{label: "TCP LAN→Internet, light ends", unit: "Gbit/s", bars: bulkLAN}}},
	{"light-lan-down", watched(onLight), busyRoom, false, bulk{down: true, light: true}.measure,
		[]line{{label: "TCP Internet→LAN, light ends", unit: "Gbit/s", bars: bulkLAN}}},
	{"light-host-up", onLightHost, busyRoom, false, bulk{fromHost: true, light: true}.measure,
		[]line{{label: "TCP host→Internet, light ends", unit: "Gbit/s", bars: bulkHost}}},
	{"light-host-down", onLightHost, busyRoom, false, bulk{down: true, fromHost: true, light: true}.measure,
		[]line{{label: "TCP Internet→host, light ends", unit: "Gbit/s", bars: bulkHost}}},
	{"udp-1", watched(onLAN), busyRoom, false, flood(1), []line{{label: "UDP 60 B, 1 flow", unit: "Mpkt/s", bars: packets}}},
	{"udp-1000", onLAN, busyRoom, false, flood(1000), []line{{label: "UDP 60 B, 1,000 flows", unit: "Mpkt/s", bars: someFlows}}},
	{"udp-30000", watched(onLAN), busyRoom, false, flood(30_000), []line{{label: "UDP 60 B, 30,000 flows", unit: "Mpkt/s", bars: packets}}},
	{"connections", watched(append([]string{nameRoutedRules}, onAll...)), busyRoom, false, connections,
		[]line{{label: "new connections", unit: "1/s", bars: newConns}}},
	{"bulk6-lan-up", onLAN, busyRoom6, false, bulk{}.measure, []line{{label: "TCP LAN→Internet, IPv6", unit: "Gbit/s", bars: bulkCopied}}},
	{"bulk6-lan-down", onLAN, busyRoom6, false, bulk{down: true}.measure,
		[]line{{label: "TCP Internet→LAN, IPv6", unit: "Gbit/s", bars: bulkCopied}}},
	{"light6-lan-up", onLight, busyRoom6, false, bulk{light: true}.measure,
		[]line{{label: "TCP LAN→Internet, light ends, IPv6", unit: "Gbit/s", bars: bulkLAN}}},
	{"light6-lan-down", onLight, busyRoom6, false, bulk{down: true, light: true}.measure,
		[]line{{label: "TCP Internet→LAN, light ends, IPv6", unit: "Gbit/s", bars: bulkLAN}}},
	{"udp6-1", onLAN, busyRoom6, false, flood(1), []line{{label: "UDP 80 B, IPv6, 1 flow", unit: "Mpkt/s", bars: packets}}},
	{"udp6-30000", onLAN, busyRoom6, false, flood(30_000), []line{{label: "UDP 80 B, IPv6, 30,000 flows", unit: "Mpkt/s", bars: packets}}},
	{"connections6", append([]string{nameRoutedRules}, onAll...), busyRoom6, false, connections,
		[]line{{label: "new connections, IPv6", unit: "1/s", bars: newConns}}},
	{"latency", onAll, busyRoom, false, latency, []line{
		{label: "connect+byte p50", unit: "µs", less: true}, {label: "connect+byte p99", unit: "µs", less: true}}},
	{"echo", onAll, busyRoom, false, echo, []line{
		{label: "UDP echo p50", unit: "µs", less: true}, {label: "UDP echo p99", unit: "µs", less: true},
		{label: "added to an echo p50", unit: "µs", bars: added, less: true, beyond: "UDP echo p50"},
		{label: "added to an echo p99", unit: "µs", bars: added, less: true, beyond: "UDP echo p99"}}},
	{"crowd", onTapgw, crowdRoom, false, crowd, []line{
		{label: "UDP 60 B, 1,000,000 sessions", unit: "Mpkt/s"},
		{label: "the same, to 1 session's", unit: "", bars: crowdShare, absolute: true}}},
	fillTask("100/100"), fillTask("100/20"), fillTask("500/50/10"),
}

// chosen returns the tasks whose name begins with one of the comma-separated words.
func chosen(only string) (some []task) {
	for _, t := range tasks {
		for word := range strings.SplitSeq(only, ",") {
			if strings.HasPrefix(t.name, word) {
				some = append(some, t)
				break
			}
		}
	}
	return some
}

// measures says whether the task is for a peer.
func (t task) measures(peer string) bool { return slices.Contains(t.on, peer) }

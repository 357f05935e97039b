// Package metrics exposes the daemon's counters in the Prometheus format. It asks for them when it is scraped and does
// nothing in between.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Source is where the numbers come from; it is called once per scrape, perhaps concurrently.
type Source interface {
	Metrics() Snapshot
}

// Snapshot is all numbers at one moment. Counters count from the start of the daemon and never fall, except where said.
type Snapshot struct {
	Datapath       string // userspace or kernel
	DatapathReason Reason // why it is not the kernel
	LANShortcut    bool   // known sessions bypass the host's own forwarding from and to the LAN
	Tables         []Table
	Uplinks        []Uplink
	Drops          map[string]uint64 // packets dropped, by reason
	Refused        map[string]uint64 // sessions refused, by reason
	Helpers        map[string]uint64 // what application helpers did, by kind
	Unanswered     map[string]uint64 // what was done about sessions that nothing came back on, by kind
	Events         map[string]uint64 // of the API, by kind
	Reload         Reload
}

// Table is the part of a Snapshot about the sessions of one family.
type Table struct {
	Family          string // ipv4 or ipv6
	Sessions, Limit int
	Hosts           int    // with sessions
	Opened          uint64 // sessions
}

// Reload is what became of attempts to read the configuration; the first was at the start.
type Reload struct {
	Failed  bool      // the latest
	Success time.Time // of the latest that did not
}

// Reason is why the kernel does not carry known sessions, as a word for a label; the status has the whole clause.
type Reason string

// The reasons.
const (
	ReasonNone        Reason = ""            // it does
	ReasonConfigured  Reason = "configured"  // the user wants it so
	ReasonPermission  Reason = "permission"  // BPF is not allowed
	ReasonUnsupported Reason = "unsupported" // the kernel is too old, or built without
	ReasonRefused     Reason = "refused"     // the kernel's verifier refuses the program
	ReasonMemory      Reason = "memory"      // too little for the session table
	ReasonOther       Reason = "other"
)

// Uplink is the part of a Snapshot about one uplink.
type Uplink struct {
	Name, Interface  string
	Sides            []Side // of the families that it has
	RxBytes, TxBytes uint64 // interface totals
	Load             float64
	Down, Up         float64 // capacity in bytes per second
	Sessions         int
	Datapath         Traffic
	Metered          bool
	UsedBytes        uint64 // in the billing period
	CapBytes         uint64 // 0 without a cap
}

// Side is what an uplink is to one family. Its counters start anew with the uplink.
type Side struct {
	Family       string // ipv4 or ipv6
	State        string // one of the states of package api
	Usable       bool   // takes new sessions
	Suspect      bool   // … which avoid it at the moment
	Since        time.Time
	RTT          time.Duration     // 0 while not measured
	Loss         float64           // 0–1
	Entered      map[string]uint64 // changes of the state, by the new one
	Failovers    uint64
	Good, Failed uint64 // rounds of probes
	Ports        []Ports
}

// Ports is how many outside ports of a protocol are taken.
type Ports struct {
	Protocol    string // tcp or udp
	Used, Limit int
}

// Traffic is what the gateway itself moved through an uplink's sockets. It starts anew when they are opened anew.
type Traffic struct {
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	Dropped            map[string]uint64 // packets, by reason
}

const maxConcurrentScrapes = 4

// Handler serves the metrics of src, of the Go runtime and of the process.
func Handler(src Source, version string) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		&collector{src: src},
		buildInfo(version),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxConcurrentScrapes,
		EnableOpenMetrics:   true,
	})
}

func buildInfo(version string) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "tapgw_build_info",
		Help:        "Always 1; the labels say which tapgw this is.",
		ConstLabels: prometheus.Labels{"version": label(version), "goversion": runtime.Version()},
	})
	g.Set(1)
	return g
}

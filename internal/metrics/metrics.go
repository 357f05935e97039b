// Package metrics exposes the daemon's counters in the Prometheus format. It asks for them when it is scraped and does
// nothing in between.
package metrics

import (
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tapgw/api"
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
}

// Table is the part of a Snapshot about the sessions of one family.
type Table struct {
	Family          string // ipv4 or ipv6
	Sessions, Limit int
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
	State            string // one of the states of package api
	RxBytes, TxBytes uint64 // interface totals
	Load             float64
	Sessions         int
	RTT              time.Duration // 0 while not measured
	Loss             float64       // 0–1
	Datapath         Traffic
	UsedBytes        uint64 // in the billing period
	CapBytes         uint64 // 0 without a cap
}

// Traffic is what the gateway itself moved through an uplink's sockets. It starts anew when they are opened anew.
type Traffic struct {
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	Dropped            map[string]uint64 // packets, by reason
}

// states are exposed for every uplink, one of them being 1.
var states = []string{api.StateProbing, api.StateUp, api.StateDegraded, api.StatePortal, api.StateDown, api.StateDisabled}

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

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	datapathInfo  = describe("tapgw_datapath_info", "Always 1; the labels say which datapath carries known sessions, and why not the kernel's.", "datapath", "reason")
	lanShortcut   = describe("tapgw_lan_shortcut", "1 when known sessions bypass the host's own forwarding from and to the LAN, else 0.")
	sessions      = describe("tapgw_sessions", "Translated sessions in the table, by family.", "family")
	sessionsLimit = describe("tapgw_sessions_limit", "Sessions the table has room for, by family.", "family")
	drops         = describe("tapgw_packets_dropped_total", "Packets dropped, by reason.", "reason")
	helpers       = describe("tapgw_helper_events_total", "What application helpers did, by kind.", "event")
	unanswered    = describe("tapgw_unanswered_total", "What was done about sessions that nothing came back on, by kind.", "event")
	refused       = describe("tapgw_sessions_refused_total", "New sessions refused, by reason.", "reason")

	uplinkInfo     = describe("tapgw_uplink_info", "Always 1; the labels say which interface an uplink has.", "uplink", "interface")
	uplinkState    = describe("tapgw_uplink_state", "1 for the state that the uplink is in, 0 for the others.", "uplink", "state")
	uplinkRx       = describe("tapgw_uplink_receive_bytes_total", "Bytes received by the uplink's interface.", "uplink")
	uplinkTx       = describe("tapgw_uplink_transmit_bytes_total", "Bytes sent by the uplink's interface.", "uplink")
	uplinkLoad     = describe("tapgw_uplink_load_ratio", "Measured load of the uplink, 1 being its capacity.", "uplink")
	uplinkSessions = describe("tapgw_uplink_sessions", "Translated sessions on the uplink.", "uplink")
	uplinkRTT      = describe("tapgw_uplink_rtt_seconds", "Round-trip time of the probes; absent while not measured.", "uplink")
	uplinkUsed     = describe("tapgw_uplink_used_bytes", "Bytes that the uplink carried in the running billing period.", "uplink")
	uplinkCap      = describe("tapgw_uplink_cap_bytes", "Bytes that the uplink may carry in a billing period; absent without a cap.", "uplink")
	uplinkLoss     = describe("tapgw_uplink_loss_ratio", "Share of the probes that were lost.", "uplink")

	datapathRxPackets = describe("tapgw_uplink_datapath_receive_packets_total", "Packets that the gateway read from the uplink; what the kernel merged is one.", "uplink")
	datapathRxBytes   = describe("tapgw_uplink_datapath_receive_bytes_total", "Bytes that the gateway read from the uplink.", "uplink")
	datapathTxPackets = describe("tapgw_uplink_datapath_transmit_packets_total", "Packets that the gateway sent by the uplink; what the kernel will cut is one.", "uplink")
	datapathTxBytes   = describe("tapgw_uplink_datapath_transmit_bytes_total", "Bytes that the gateway sent by the uplink.", "uplink")
	datapathDropped   = describe("tapgw_uplink_datapath_packets_dropped_total", "Packets that the uplink's sockets dropped, by reason.", "uplink", "reason")
)

type collector struct{ src Source }

// Describe sends everything that Collect may send.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		datapathInfo, lanShortcut, sessions, sessionsLimit, drops, refused, helpers, unanswered,
		uplinkInfo, uplinkState, uplinkRx, uplinkTx, uplinkLoad, uplinkSessions, uplinkRTT, uplinkLoss, uplinkUsed, uplinkCap,
		datapathRxPackets, datapathRxBytes, datapathTxPackets, datapathTxBytes, datapathDropped,
	} {
		out <- d
	}
}

// Collect reads one snapshot.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.src.Metrics()
	gauge(out, datapathInfo, 1, s.Datapath, string(s.DatapathReason))
	gauge(out, lanShortcut, truth(s.LANShortcut))
	for _, t := range s.Tables {
		gauge(out, sessions, float64(t.Sessions), t.Family)
		gauge(out, sessionsLimit, float64(t.Limit), t.Family)
	}
	for reason, n := range s.Drops {
		counter(out, drops, n, reason)
	}
	for reason, n := range s.Refused {
		counter(out, refused, n, reason)
	}
	for event, n := range s.Helpers {
		counter(out, helpers, n, event)
	}
	for event, n := range s.Unanswered {
		counter(out, unanswered, n, event)
	}
	for _, u := range s.Uplinks {
		collectUplink(out, u)
	}
}

func collectUplink(out chan<- prometheus.Metric, u Uplink) {
	gauge(out, uplinkInfo, 1, u.Name, u.Interface)
	for _, state := range states {
		gauge(out, uplinkState, truth(u.State == state), u.Name, state)
	}
	counter(out, uplinkRx, u.RxBytes, u.Name)
	counter(out, uplinkTx, u.TxBytes, u.Name)
	gauge(out, uplinkLoad, u.Load, u.Name)
	gauge(out, uplinkSessions, float64(u.Sessions), u.Name)
	gauge(out, uplinkLoss, u.Loss, u.Name)
	gauge(out, uplinkUsed, float64(u.UsedBytes), u.Name)
	if u.CapBytes > 0 {
		gauge(out, uplinkCap, float64(u.CapBytes), u.Name)
	}
	if u.RTT > 0 {
		gauge(out, uplinkRTT, u.RTT.Seconds(), u.Name)
	}
	collectTraffic(out, u.Name, u.Datapath)
}

func collectTraffic(out chan<- prometheus.Metric, uplink string, t Traffic) {
	counter(out, datapathRxPackets, t.RxPackets, uplink)
	counter(out, datapathRxBytes, t.RxBytes, uplink)
	counter(out, datapathTxPackets, t.TxPackets, uplink)
	counter(out, datapathTxBytes, t.TxBytes, uplink)
	for reason, n := range t.Dropped {
		counter(out, datapathDropped, n, uplink, reason)
	}
}

// truth is a condition as a number.
func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	emit(out, d, prometheus.GaugeValue, v, labels)
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	emit(out, d, prometheus.CounterValue, float64(v), labels)
}

func emit(out chan<- prometheus.Metric, d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = label(labels[i])
	}
	out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

// label makes s acceptable to the library, which panics on anything but UTF-8.
func label(s string) string { return strings.ToValidUTF8(s, "?") }

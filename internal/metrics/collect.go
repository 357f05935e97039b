package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"tapgw/api"
)

// states are exposed for every side of an uplink, one of them being 1.
var states = []string{api.StateProbing, api.StateUp, api.StateDegraded, api.StatePortal, api.StateDown, api.StateDisabled}

// described is every metric of the daemon.
var described []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	described = append(described, d)
	return d
}

var (
	datapathInfo  = describe("tapgw_datapath_info", "Always 1; the labels say which datapath carries known sessions, and why not the kernel's.", "datapath", "reason")
	lanShortcut   = describe("tapgw_lan_shortcut", "1 when known sessions bypass the host's own forwarding from and to the LAN, else 0.")
	sessions      = describe("tapgw_sessions", "Translated sessions in the table, by family.", "family")
	sessionsLimit = describe("tapgw_sessions_limit", "Sessions the table has room for, by family.", "family")
	opened        = describe("tapgw_sessions_opened_total", "Sessions that were begun, by family.", "family")
	hosts         = describe("tapgw_hosts", "Hosts that have sessions, by family.", "family")
	refused       = describe("tapgw_sessions_refused_total", "New sessions refused, by reason.", "reason")
	drops         = describe("tapgw_packets_dropped_total", "Packets dropped, by reason.", "reason")
	helpers       = describe("tapgw_helper_events_total", "What application helpers did, by kind.", "event")
	unanswered    = describe("tapgw_unanswered_total", "What was done about sessions that nothing came back on, by kind.", "event")
	events        = describe("tapgw_events_total", "Events as tapgw events shows them, by kind.", "kind")
	reloadOK      = describe("tapgw_config_last_reload_successful", "1 when the configuration was right when it was last read, 0 when it was refused and the old one stays.")
	reloadTime    = describe("tapgw_config_last_reload_success_timestamp_seconds", "When the configuration in force was read.")

	uplinkInfo     = describe("tapgw_uplink_info", "Always 1; the labels say which interface an uplink has.", "uplink", "interface")
	uplinkRx       = describe("tapgw_uplink_receive_bytes_total", "Bytes received by the uplink's interface.", "uplink")
	uplinkTx       = describe("tapgw_uplink_transmit_bytes_total", "Bytes sent by the uplink's interface.", "uplink")
	uplinkLoad     = describe("tapgw_uplink_load_ratio", "Measured load of the uplink, 1 being its capacity.", "uplink")
	uplinkCapacity = describe("tapgw_uplink_capacity_bytes_per_second", "What the uplink can carry, as configured, assumed or learned.", "uplink", "direction")
	uplinkSessions = describe("tapgw_uplink_sessions", "Translated sessions on the uplink.", "uplink")
	uplinkMetered  = describe("tapgw_uplink_metered", "1 for an uplink whose data cost money, else 0.", "uplink")
	uplinkUsed     = describe("tapgw_uplink_used_bytes", "Bytes that the uplink carried in the running billing period.", "uplink")
	uplinkCap      = describe("tapgw_uplink_cap_bytes", "Bytes that the uplink may carry in a billing period; absent without a cap.", "uplink")

	uplinkUp        = describe("tapgw_uplink_up", "1 when the uplink takes new sessions of the family, else 0.", "uplink", "family")
	uplinkState     = describe("tapgw_uplink_state", "1 for the state that the uplink is in, 0 for the others.", "uplink", "family", "state")
	uplinkSince     = describe("tapgw_uplink_state_change_timestamp_seconds", "When the uplink came into its state.", "uplink", "family")
	uplinkEntered   = describe("tapgw_uplink_state_changes_total", "Changes of the uplink's state, by the new one.", "uplink", "family", "state")
	uplinkFailovers = describe("tapgw_uplink_failovers_total", "How often the uplink stopped taking sessions while another could.", "uplink", "family")
	uplinkSuspect   = describe("tapgw_uplink_suspect", "1 while new sessions avoid the uplink, as remotes do not answer by it, else 0.", "uplink", "family")
	uplinkRTT       = describe("tapgw_uplink_rtt_seconds", "Round-trip time of the probes; absent while not measured.", "uplink", "family")
	uplinkLoss      = describe("tapgw_uplink_loss_ratio", "Share of the probes that were lost.", "uplink", "family")
	uplinkRounds    = describe("tapgw_uplink_probe_rounds_total", "Rounds of probes, by whether enough targets answered.", "uplink", "family", "result")
	uplinkPorts     = describe("tapgw_uplink_ports_used", "Outside ports of the uplink that are in use or rest after it.", "uplink", "family", "protocol")
	uplinkPortLimit = describe("tapgw_uplink_ports_limit", "Outside ports that the uplink has.", "uplink", "family", "protocol")

	datapathRxPackets = describe("tapgw_uplink_datapath_receive_packets_total", "Packets that the gateway read from the uplink; what the kernel merged is one.", "uplink")
	datapathRxBytes   = describe("tapgw_uplink_datapath_receive_bytes_total", "Bytes that the gateway read from the uplink.", "uplink")
	datapathTxPackets = describe("tapgw_uplink_datapath_transmit_packets_total", "Packets that the gateway sent by the uplink; what the kernel will cut is one.", "uplink")
	datapathTxBytes   = describe("tapgw_uplink_datapath_transmit_bytes_total", "Bytes that the gateway sent by the uplink.", "uplink")
	datapathDropped   = describe("tapgw_uplink_datapath_packets_dropped_total", "Packets that the uplink's sockets dropped, by reason.", "uplink", "reason")
)

type collector struct{ src Source }

// Describe sends everything that Collect may send.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range described {
		out <- d
	}
}

// Collect reads one snapshot.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.src.Metrics()
	gauge(out, datapathInfo, 1, s.Datapath, string(s.DatapathReason))
	gauge(out, lanShortcut, truth(s.LANShortcut))
	gauge(out, reloadOK, truth(!s.Reload.Failed))
	gauge(out, reloadTime, float64(s.Reload.Success.Unix()))
	for _, t := range s.Tables {
		gauge(out, sessions, float64(t.Sessions), t.Family)
		gauge(out, sessionsLimit, float64(t.Limit), t.Family)
		gauge(out, hosts, float64(t.Hosts), t.Family)
		counter(out, opened, t.Opened, t.Family)
	}
	counters(out, drops, s.Drops)
	counters(out, refused, s.Refused)
	counters(out, helpers, s.Helpers)
	counters(out, unanswered, s.Unanswered)
	counters(out, events, s.Events)
	for _, u := range s.Uplinks {
		collectUplink(out, u)
	}
}

func collectUplink(out chan<- prometheus.Metric, u Uplink) {
	gauge(out, uplinkInfo, 1, u.Name, u.Interface)
	counter(out, uplinkRx, u.RxBytes, u.Name)
	counter(out, uplinkTx, u.TxBytes, u.Name)
	gauge(out, uplinkLoad, u.Load, u.Name)
	gauge(out, uplinkCapacity, u.Down, u.Name, "receive")
	gauge(out, uplinkCapacity, u.Up, u.Name, "transmit")
	gauge(out, uplinkSessions, float64(u.Sessions), u.Name)
	gauge(out, uplinkMetered, truth(u.Metered), u.Name)
	gauge(out, uplinkUsed, float64(u.UsedBytes), u.Name)
	if u.CapBytes > 0 {
		gauge(out, uplinkCap, float64(u.CapBytes), u.Name)
	}
	for _, s := range u.Sides {
		collectSide(out, u.Name, s)
	}
	collectTraffic(out, u.Name, u.Datapath)
}

func collectSide(out chan<- prometheus.Metric, uplink string, s Side) {
	gauge(out, uplinkUp, truth(s.Usable), uplink, s.Family)
	gauge(out, uplinkSuspect, truth(s.Suspect), uplink, s.Family)
	gauge(out, uplinkSince, float64(s.Since.Unix()), uplink, s.Family)
	for _, state := range states {
		gauge(out, uplinkState, truth(s.State == state), uplink, s.Family, state)
		counter(out, uplinkEntered, s.Entered[state], uplink, s.Family, state)
	}
	counter(out, uplinkFailovers, s.Failovers, uplink, s.Family)
	gauge(out, uplinkLoss, s.Loss, uplink, s.Family)
	if s.RTT > 0 {
		gauge(out, uplinkRTT, s.RTT.Seconds(), uplink, s.Family)
	}
	counter(out, uplinkRounds, s.Good, uplink, s.Family, "good")
	counter(out, uplinkRounds, s.Failed, uplink, s.Family, "failed")
	for _, p := range s.Ports {
		gauge(out, uplinkPorts, float64(p.Used), uplink, s.Family, p.Protocol)
		gauge(out, uplinkPortLimit, float64(p.Limit), uplink, s.Family, p.Protocol)
	}
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

// counters is counter for each value of the only label.
func counters(out chan<- prometheus.Metric, d *prometheus.Desc, values map[string]uint64) {
	for value, n := range values {
		counter(out, d, n, value)
	}
}

func emit(out chan<- prometheus.Metric, d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	for i := range labels {
		labels[i] = label(labels[i])
	}
	out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
}

// label makes s acceptable to the library, which panics on anything but UTF-8.
func label(s string) string { return strings.ToValidUTF8(s, "?") }

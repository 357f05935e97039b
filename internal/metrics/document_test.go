package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"tapgw/internal/golden"
)

const documentHead = `# Metrics

All metrics of the daemon, made from its code by ` + "`go test ./internal/metrics -run TestDocument -update`" + `. They are at ` + "`/metrics`" + ` of the
control socket, and at the loopback address ` + "`api.metrics`" + ` where that is set, as OpenMetrics too where the scraper asks for it.
[monitoring.md](monitoring.md) says how to collect them, and has alarms and a dashboard; the usual metrics of Go programs and processes
(` + "`go_…`, `process_…`" + `) are there as well.

Counters count from the start of the daemon. No label has values without bound: there is none by host, address or site.

| metric | type | labels | |
|---|---|---|---|
`

// labelValues says what labels mean that are not clear from the metric's help.
const labelValues = `
| label | values |
|---|---|
| ` + "`uplink`" + ` | name of the uplink |
| ` + "`family`" + ` | ` + "`ipv4`, `ipv6`" + `; a family that an uplink never had is absent |
| ` + "`state`" + ` | %s |
| ` + "`direction`" + ` | ` + "`receive`, `transmit`" + ` |
| ` + "`protocol`" + ` | ` + "`tcp`, `udp`" + ` |
| ` + "`result`" + ` | ` + "`good`, `failed`" + ` |
| ` + "`kind`" + ` | as in the events: ` + "`state`, `appeared`, `repair`, …" + ` |
`

// TestDocument: docs/metrics.md has what a scrape that has everything has.
func TestDocument(t *testing.T) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(ours(scrape(t, sample()))))
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(described)+1 { // and the build's
		t.Errorf("the sample has %d metrics of %d", len(families), len(described)+1)
	}
	names := make([]string, 0, len(families))
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(documentHead)
	for _, name := range names {
		b.WriteString(row(families[name]))
	}
	fmt.Fprintf(&b, labelValues, "`"+strings.Join(states, "`, `")+"`")
	golden.Text(t, "../../docs/metrics.md", b.String())
}

// row is the line of one metric.
func row(f *dto.MetricFamily) string {
	var labels []string
	for _, l := range f.Metric[0].Label {
		labels = append(labels, "`"+l.GetName()+"`")
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
}

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// metric scrapes the daemon and returns one value.
func (g *gateway) metric(name string) float64 {
	g.t.Helper()
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(g.scrape("text/plain"))
	if match == nil {
		g.t.Fatalf("no metric %s", name)
	}
	value, err := strconv.ParseFloat(match[1], 64)
	labtest.Must(g.t, err)
	return value
}

// scrape reads all metrics from the socket.
func (g *gateway) scrape(format string) string {
	g.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.socket())
		}}}
	request, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, "http://tapgw/metrics", nil)
	labtest.Must(g.t, err)
	request.Header.Set("Accept", format)
	answer, err := client.Do(request)
	labtest.Must(g.t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	labtest.Must(g.t, err)
	return string(body)
}

// TestMetricsOfAFailover: what alarms are made of moves when an uplink dies, returns, and when a configuration is refused.
func TestMetricsOfAFailover(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, waiting(inTurn))
	const up, of = `tapgw_uplink_up{family="ipv4",uplink="wan1"}`, `{family="ipv4",uplink="wan1"}`
	const entered = `tapgw_uplink_state_changes_total{family="ipv4",state="down",uplink="wan1"}`
	if w.metric(up) != 1 || w.metric(entered) != 0 || w.metric("tapgw_uplink_failovers_total"+of) != 0 {
		t.Errorf("before the cut:\n%s", w.scrape("text/plain"))
	}
	cut := time.Now()
	labtest.Must(t, w.Uplinks[0].Link.Cut())
	w.events.state("wan1", api.StateDown, cut.Add(-time.Second))
	if w.metric(up) != 0 || w.metric(entered) != 1 || w.metric("tapgw_uplink_failovers_total"+of) != 1 {
		t.Errorf("after the cut:\n%s", w.scrape("text/plain"))
	}
	if at := w.metric("tapgw_uplink_state_change_timestamp_seconds" + of); at < float64(cut.Unix()-1) || at > float64(time.Now().Unix()) {
		t.Errorf("cut at %d, told is %f", cut.Unix(), at)
	}
	labtest.Must(t, w.Uplinks[0].Link.Mend())
	w.events.state("wan1", api.StateUp, cut)
	if w.metric(up) != 1 || w.metric("tapgw_uplink_failovers_total"+of) != 1 {
		t.Errorf("after the repair:\n%s", w.scrape("text/plain"))
	}
	const good = `tapgw_uplink_probe_rounds_total{family="ipv4",result="good",uplink="wan2"}`
	before := w.metric(good)
	eventually(t, "another good round", func() bool { return w.metric(good) > before })
	w.write("nonsense: 1\n")
	if _, status := w.tapgw("reload"); status == 0 || w.metric("tapgw_config_last_reload_successful") != 0 {
		t.Errorf("status %d of a wrong configuration", status)
	}
	w.use(waiting(inTurn))
	if w.metric("tapgw_config_last_reload_successful") != 1 || w.metric(`tapgw_events_total{kind="reload"}`) != 1 {
		t.Errorf("after a right one:\n%s", w.scrape("text/plain"))
	}
}

// promtool runs Prometheus' own checker, with input, and fails the test where that finds something.
func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "../bin/prometheus/usr/bin/promtool", args...)
	c.Stdin = strings.NewReader(input)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// ofTapgw leaves out what the libraries say of Go and the process.
func ofTapgw(metrics string) string {
	var b strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "tapgw_") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestPrometheus: Prometheus finds nothing to say about the metrics and the alarms, every alarm fires as its test says, and alarms and
// dashboard ask for nothing that the daemon does not tell.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	const folder = "../docs/prometheus/"
	g, _, _ := settled(t, lab.Options{}, "uplinks: [{interface: wan1, metered: {cap: 1GB}}, {interface: wan2}]\n")
	text := ofTapgw(g.scrape("text/plain"))
	promtool(t, text, "check", "metrics")
	promtool(t, "", "check", "rules", folder+"tapgw.rules.yml")
	promtool(t, "", "test", "rules", folder+"tapgw.rules.test.yml")
	dashboard := filepath.Join(t.TempDir(), "dashboard.yml")
	labtest.Must(t, os.WriteFile(dashboard, dashboardRules(t), 0o644))
	promtool(t, "", "check", "rules", dashboard)
	for _, file := range []string{folder + "tapgw.rules.yml", dashboard} {
		content, err := os.ReadFile(file)
		labtest.Must(t, err)
		for _, name := range regexp.MustCompile(`\btapgw_\w+`).FindAllString(string(content), -1) {
			if !strings.Contains(text, "# TYPE "+name+" ") {
				t.Errorf("%s asks for %s", file, name)
			}
		}
	}
	if format := g.scrape("application/openmetrics-text; version=1.0.0"); !strings.HasSuffix(format, "\n# EOF\n") {
		t.Errorf("not OpenMetrics:\n%s", format)
	}
}

// dashboardRules are the questions of the dashboard in a form that promtool reads.
func dashboardRules(t *testing.T) []byte {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	content, err := os.ReadFile("../docs/grafana/tapgw.json")
	labtest.Must(t, err)
	labtest.Must(t, json.Unmarshal(content, &dashboard))
	type rule struct{ Record, Expr string }
	var rules []rule
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$uplink", ".*")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			rules = append(rules, rule{"panel" + strconv.Itoa(len(rules)), variables.Replace(target.Expr)})
		}
	}
	if len(rules) < 10 {
		t.Errorf("%d questions in the dashboard", len(rules))
	}
	group := map[string]any{"name": "dashboard", "rules": rules}
	text, err := yaml.Marshal(map[string]any{"groups": []any{group}})
	labtest.Must(t, err)
	return text
}

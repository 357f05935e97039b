package metrics

import (
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/golden"
)

type fixed Snapshot

func (f fixed) Metrics() Snapshot { return Snapshot(f) }

func scrape(t *testing.T, s Snapshot) string {
	t.Helper()
	return scrapeAs(t, s, "text/plain").Body.String()
}

// scrapeAs asks for the metrics in a format.
func scrapeAs(t *testing.T, s Snapshot, format string) *httptest.ResponseRecorder {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", format)
	Handler(fixed(s), "1.2.3").ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w
}

func TestOpenMetrics(t *testing.T) {
	w := scrapeAs(t, sample(), "application/openmetrics-text; version=1.0.0")
	if kind := w.Header().Get("Content-Type"); !strings.HasPrefix(kind, "application/openmetrics-text") {
		t.Error(kind)
	}
	for _, want := range []string{"# TYPE tapgw_sessions_opened counter\n", "\ntapgw_sessions_opened_total{family=\"ipv4\"} 9000.0\n", "\n# EOF\n"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in:\n%s", want, w.Body)
		}
	}
}

// ours drops what the library says of Go and the process, which is different each time.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "tapgw_") {
			b.WriteString(line)
		}
	}
	return regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(b.String(), `goversion="go"`)
}

func sample() Snapshot {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	return Snapshot{
		Datapath: api.DatapathUserspace, DatapathReason: ReasonPermission,
		Tables:  []Table{{"ipv4", 192, 65536, 12, 9000}, {"ipv6", 7, 32768, 1, 70}},
		Drops:   map[string]uint64{"malformed": 3, "relay": 1},
		Refused: map[string]uint64{"table_full": 7},
		Helpers: map[string]uint64{"payload_changed": 2}, Unanswered: map[string]uint64{"moved": 4},
		Events: map[string]uint64{api.EventState: 5, api.EventRepair: 1},
		Reload: Reload{Failed: true, Success: noon},
		Uplinks: []Uplink{
			{Name: "fiber", Interface: "eth0", RxBytes: 1e12, TxBytes: 42, Load: 0.61, Down: 12.5e6, Up: 5e6, Sessions: 128,
				Sides: []Side{
					{Family: "ipv4", State: api.StateUp, Usable: true, Since: noon, RTT: 9 * time.Millisecond, Good: 900, Failed: 2,
						Ports: []Ports{{"tcp", 90, 28232}, {"udp", 31, 28232}}},
					{Family: "ipv6", State: api.StateDegraded, Usable: true, Suspect: true, Since: noon, Loss: 0.25},
				},
				Datapath: Traffic{RxPackets: 1000, RxBytes: 1e6, TxPackets: 10, TxBytes: 20, Dropped: map[string]uint64{"queue_full": 5, "overflow": 0}}},
			{Name: "lte", Interface: "wwan0", Metered: true, UsedBytes: 16.3e9, CapBytes: 20e9,
				Sides: []Side{{Family: "ipv4", State: api.StateDown, Since: noon, Loss: 1, Failovers: 1, Entered: map[string]uint64{api.StateDown: 2, api.StateUp: 1}}}},
		},
	}
}

func TestGolden(t *testing.T) {
	golden.Text(t, "testdata/metrics.txt", ours(scrape(t, sample())))
}

func TestKernelDatapath(t *testing.T) {
	s := sample()
	s.Datapath, s.DatapathReason, s.LANShortcut = api.DatapathKernel, ReasonNone, true
	got := ours(scrape(t, s))
	for _, want := range []string{`tapgw_datapath_info{datapath="kernel",reason=""} 1`, "tapgw_lan_shortcut 1"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
}

func TestHostileValues(t *testing.T) {
	s := sample()
	s.Uplinks[0].Name = "bad\xff\"\n}"
	s.Uplinks[0].Load = math.NaN()
	s.Drops["\xfe"] = 1
	got := ours(scrape(t, s))
	if !strings.Contains(got, `tapgw_uplink_sessions{uplink="bad?\"\n}"} 128`) || !strings.Contains(got, `reason="?"`) {
		t.Error(got)
	}
}

func TestTwoUplinksOfOneNameDoNotHideTheRest(t *testing.T) {
	s := sample()
	s.Uplinks[1].Name = s.Uplinks[0].Name
	if got := ours(scrape(t, s)); !strings.Contains(got, `tapgw_sessions{family="ipv4"} 192`) {
		t.Error(got)
	}
}

func TestConcurrentScrapes(t *testing.T) {
	h := Handler(fixed(sample()), "1")
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if w.Code != http.StatusOK && w.Code != http.StatusServiceUnavailable {
				t.Error(w.Code)
			}
		})
	}
	all.Wait()
}

// TestNames follows the naming rules of Prometheus: our prefix, base units, _total on counters and only there.
func TestNames(t *testing.T) {
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(ours(scrape(t, sample())), -1) {
		name, kind := m[1], m[2]
		if !strings.HasPrefix(name, "tapgw_") || strings.HasSuffix(name, "_total") != (kind == "counter") {
			t.Errorf("%s is a %s", name, kind)
		}
	}
}

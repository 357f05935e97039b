package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"tapgw/api"
	"tapgw/internal/history"
	"tapgw/internal/hostconf"
	"tapgw/uplinks"
)

const (
	// rememberEvery is how often the uplinks' rates and health are remembered while something goes on.
	rememberEvery = time.Second
	// pastEvery is how often what is remembered is written down: a power failure loses no more, and disks may sleep in between.
	pastEvery = 5 * time.Minute
)

// past is what was, and the file that keeps it over restarts.
type past struct {
	*history.History
	log  *slog.Logger
	file stateFile
}

func newPast(log *slog.Logger) *past {
	return &past{History: history.New(), log: log, file: stateFile{tell: func(err error) {
		log.Warn("the history is not written down, and forgotten at the next restart", "error", err)
	}}}
}

// pastPath is where the file is.
func pastPath(socket string) string {
	return filepath.Join(hostconf.StateDir(os.Getenv("STATE_DIRECTORY"), socket), "history.json.gz")
}

// open reads what was. A file that is not one of ours is moved aside, for who wants to look at it.
func (p *past) open(path string) {
	p.file.path = path
	data, err := p.file.read(p.log)
	if err == nil && data != nil {
		err = p.Restore(data)
	}
	if err == nil {
		return
	}
	aside := path + ".corrupt"
	if failed := os.Rename(path, aside); failed != nil {
		aside = path
	}
	p.log.Warn("the history begins anew, as the one before cannot be read", "file", aside, "error", err)
}

// keep writes the file now and then, and at the end.
func (p *past) keep(ctx context.Context) error {
	ticks := time.NewTicker(pastEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			p.file.write(p.Render(time.Now()))
			return nil
		case now := <-ticks.C:
			p.file.write(p.Render(now))
		}
	}
}

// remember takes the uplinks as they are now. It uses and returns the room of samples.
func (d *Daemon) remember(samples []history.Sample) []history.Sample {
	samples = samples[:0]
	for _, u := range d.snapshot.Load().Uplinks {
		meter := d.meters[u.ID]
		rx, tx := meter.Rates()
		samples = append(samples, history.Sample{Name: u.Name, Point: history.Point{
			Rx: float32(rx), Tx: float32(tx), Load: float32(min(1, meter.Load())),
			RTT: float32(milliseconds(u.Health.RTT)), Loss: float32(u.Health.Loss), State: string(stateOf(u)),
		}})
	}
	d.past.Observe(time.Now(), samples)
	return samples
}

// stateOf is that of IPv4, or of IPv6 where only that is usable.
func stateOf(u *uplinks.Uplink) uplinks.State {
	if !u.State.Usable() && u.V6.State.Usable() {
		return u.V6.State
	}
	return u.State
}

// History answers GET /v1/history.
func (b backend) History(span string) (api.History, bool) { return b.past.Span(time.Now(), span) }

// PastEvents answers GET /v1/history/events.
func (b backend) PastEvents() []api.Event { return b.past.Events() }

// Package tapgw is the data plane: it decides for each frame that comes out of the TAP or in by an uplink what it becomes
// and where it goes. Read gateway, then outbound and inbound. It is pure: buffers and time come in as arguments, verdicts
// go out; the folders below it hold the devices.
package tapgw

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tapgw/internal/packet"
	"tapgw/names"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// Config is what the gateway needs to know beside the table and the uplinks.
type Config struct {
	IPv6       bool       // the family of all that is translated
	TAPMAC     [6]byte    // of the TAP device: destination of everything delivered
	GatewayMAC [6]byte    // of the imaginary router behind the TAP
	GatewayIP  netip.Addr // of that router; of IPv6 one of the link
	TAPIP      netip.Addr // of the host on the TAP, until SetHost
	// Held reports whether a socket of the host has this port of an uplink's address, so that packets without a
	// session are returned to it. It may make a system call; it is asked only off the hot path.
	Held func(proto uint8, addr packet.Addr, port uint16) bool
	// Sessions counts the sessions of both families on an uplink; nil where there is one family.
	Sessions func(uplink uint8) int
	// Connections counts those of TCP.
	Connections func(uplink uint8) int
	// Facts find out what rules ask of a session.
	Facts policy.Facts
	// Clock is the present since any fixed moment, finer than a tick, for how long remotes take to answer. Wake says that
	// Overdue is to be called soon. Without both nobody watches for answers.
	Clock func() time.Duration
	Wake  func()
	// Settle waits for a moment, until what the uplinks had received when it was called has been handled.
	Settle func()
}

// Gateway translates frames of one family. All methods may be called from several goroutines at once.
type Gateway struct {
	cfg        Config
	table      *nat.Table
	meters     *Meters
	view       atomic.Pointer[view]
	drops      [numReasons]atomic.Uint64
	originated rateLimit // of packets we originate towards the inside
	refusals   refusals
	routing    atomic.Pointer[routing]
	minute     atomic.Uint32 // policy.Minute

	tcp      atomic.Pointer[TCPOptions]
	ends     atomic.Pointer[ends]
	services atomic.Pointer[services]
	remotes  *remotes
	severed  severed

	// Datagrams in pieces, apart by where they come from: a flood on one side harms nobody else's.
	fromTAP    *nat.Fragments[fate]
	fromUplink [uplinks.MaxUplinks]*nat.Fragments[fate]

	helpers *helpers
	names   atomic.Pointer[names.Book] // nil where nobody needs them
	watch   *watch

	mu         sync.Mutex // guards the choice of an uplink for a new session
	ways       uplinks.Ways
	candidates []policy.Candidate
	sticky     *policy.Sticky // nil until the first session that sticks
}

// New returns a gateway without uplinks or rules; SetUplinks must follow.
func New(cfg Config, table *nat.Table, meters *Meters) *Gateway {
	if cfg.Sessions == nil {
		cfg.Sessions, cfg.Connections = table.SessionsOn, table.Connections
	}
	if cfg.Clock == nil {
		cfg.Clock = func() time.Duration { return 0 }
	}
	w := &watch{wake: cfg.Wake, isAnswered: table.Answered, stock: moveStock}
	g := &Gateway{cfg: cfg, watch: w, table: table, meters: meters, remotes: newRemotes()}
	g.fromTAP = nat.NewFragments[fate](&g.drops[FragmentLost])
	for id := range g.fromUplink {
		g.fromUplink[id] = nat.NewFragments[fate](&g.drops[FragmentLost])
	}
	g.helpers = newHelpers(table)
	g.helpers.at = func(uplink uint8, outside packet.Addr) nat.Binding { return g.view.Load().at(uplink, outside) }
	g.candidates = make([]policy.Candidate, 0, uplinks.MaxUplinks)
	g.SetUplinks(uplinks.NewSnapshot(nil))
	g.SetHost(cfg.TAPIP)
	g.SetServices(nil, nil)
	_ = g.SetPlan(policy.NewPlan(policy.Default)) // which there is
	g.SetTCP(TCPOptions{})
	return g
}

// Meters measure the load of each uplink, by ID.
type Meters [uplinks.MaxUplinks]*uplinks.Meter

// view is the uplinks as the packet path needs them, derived once per snapshot.
type view struct {
	*uplinks.Snapshot
	addresses [uplinks.MaxUplinks][]packet.Addr // of each uplink: those of no one inside host
	pool      [uplinks.MaxUplinks][]packet.Addr // … which new sessions share
	static    [uplinks.MaxUplinks][]static
	prefixes  [uplinks.MaxUplinks][]nat.PrefixPair
	insides   map[packet.Addr]bool        // that have a static mapping
	capacity  [uplinks.MaxUplinks]float64 // bits per second, never 0 for an uplink that exists
	resolvers map[packet.Addr]idSet       // of ISPs, and whose customers they answer

	isHostItself func(inside packet.Addr) bool
}

// SetUplinks publishes a new view of the uplinks; frames under way may still use the one before.
func (g *Gateway) SetUplinks(s *uplinks.Snapshot) {
	v := &view{Snapshot: s, isHostItself: g.isHostItself}
	for id, c := range uplinks.EffectiveCapacity(s.Uplinks) {
		v.capacity[id] = float64(max(c.Up, c.Down))
	}
	for _, u := range s.Uplinks {
		v.addresses[u.ID], v.pool[u.ID] = u.Shared(), u.Pool()
		v.addStatic(u)
		v.addPrefixes(u)
		v.addResolvers(u)
	}
	g.view.Store(v)
}

// SetWays replaces the ways to the LAN, for new sessions and for those there are.
func (g *Gateway) SetWays(w uplinks.Ways) {
	g.mu.Lock()
	g.ways = w
	g.mu.Unlock()
	g.table.Relabel(w.Hop)
}

// rateLimit bounds how many packets we originate: at most perTick in each tick of the clock.
type rateLimit struct {
	state atomic.Uint64 // tick<<32 | count
}

const perTick = 64 // about 1,000 a second

func (r *rateLimit) allow(now nat.Tick) bool {
	for {
		old := r.state.Load()
		next := uint64(now)<<32 | 1
		if old>>32 == uint64(now) {
			if uint32(old) >= perTick {
				return false
			}
			next = old + 1
		}
		if r.state.CompareAndSwap(old, next) {
			return true
		}
	}
}

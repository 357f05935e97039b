package policy

import (
	"net/netip"
	"time"
)

// Session is what is known of a session that is to be placed.
type Session struct {
	Inside, Remote         netip.Addr
	InsidePort, RemotePort uint16 // 0 where the protocol has none
	Proto                  uint8  // of the Internet Protocol
	DSCP                   uint8  // of its first packet (RFC 2474)
	Minute                 Minute // when
	Own                    bool   // of the host itself, so that no Direct rule matches: its address means nothing elsewhere
}

// Minute is a minute of the week in local time, 0 to 10,079; Sunday is the first day.
type Minute uint16

const minutesOfDay = 24 * 60

// MinuteOf is the minute of the week of t, in the location of t.
func MinuteOf(t time.Time) Minute {
	return Minute(int(t.Weekday())*minutesOfDay + t.Hour()*60 + t.Minute())
}

// Facts find out what costs something to know of a session. Each is asked only when a rule needs it, perhaps by several goroutines
// at once; one that is nil knows nothing.
type Facts struct {
	Interface func(Session) string                 // of the LAN that the inside host is behind, "" for the host itself
	MAC       func(Session) (address MAC, ok bool) // of the inside host, or of the router that it is behind
	Domains   func(Session) []string               // names that the inside host knows the remote by: small letters, no final dot
	Owner     func(Session) (owner Owner, ok bool) // of the host's own socket
}

// MAC is a hardware address.
type MAC [6]byte

// Owner is the process that a socket of the host belongs to.
type Owner struct {
	UID        uint32
	User       string // name, "" when the number has none
	Cgroup     string // path from the root of the hierarchy, as /system.slice/nginx.service
	Executable string // absolute path
}

func (f *Facts) interfaceOf(s *Session) string {
	if f.Interface == nil {
		return ""
	}
	return f.Interface(*s)
}

func (f *Facts) macOf(s *Session) (address MAC, ok bool) {
	if f.MAC == nil {
		return address, false
	}
	return f.MAC(*s)
}

func (f *Facts) domainsOf(s *Session) []string {
	if f.Domains == nil {
		return nil
	}
	return f.Domains(*s)
}

func (f *Facts) ownerOf(s *Session) (owner Owner, ok bool) {
	if f.Owner == nil || !s.Own {
		return owner, false
	}
	return f.Owner(*s)
}

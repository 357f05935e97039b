package uplinks

import "fmt"

// MeteredTier is the tier of a metered uplink unless the user says otherwise: it is used only when no other works.
const MeteredTier = 1

// commands override the configuration until the daemon ends, by the name of an uplink.
type commands struct {
	disabled, metered map[string]bool
	preferred         string
}

// applied is the spec of u with what commands say instead.
func (c *commands) applied(u *tracked) Spec {
	s := u.spec
	if metered, commanded := c.metered[u.name]; commanded && metered != s.Metered {
		s.Metered = metered
		if metered {
			s.Tier = max(s.Tier, MeteredTier)
		} else if s.Tier == MeteredTier {
			s.Tier = 0
		}
	}
	if s.Metered && s.OnRecover == "" {
		s.OnRecover = OnRecoverDrain // its data cost money
	}
	return s
}

// SetDisabled switches an uplink off or on by command. An error wraps ErrUnknown.
func (t *Tracker) SetDisabled(name string, disabled bool) error {
	return t.command(name, func() { t.commands.disabled[name] = disabled })
}

// SetMetered says by command whether the data of an uplink cost money. An error wraps ErrUnknown.
func (t *Tracker) SetMetered(name string, metered bool) error {
	return t.command(name, func() { t.commands.metered[name] = metered })
}

// UnsetMetered leaves that to the configuration again. An error wraps ErrUnknown.
func (t *Tracker) UnsetMetered(name string) error {
	return t.command(name, func() { delete(t.commands.metered, name) })
}

// Unmetered reports whether an uplink is not metered by command.
func (t *Tracker) Unmetered(name string) bool {
	metered, commanded := t.commands.metered[name]
	return commanded && !metered
}

// Prefer has an uplink come before those of all tiers, or none for "". An error wraps ErrUnknown.
func (t *Tracker) Prefer(name string) error {
	if name == "" {
		t.commands.preferred = ""
		return nil
	}
	return t.command(name, func() { t.commands.preferred = name })
}

// command carries out what is said of an uplink that there is.
func (t *Tracker) command(name string, do func()) error {
	for _, u := range t.list {
		if u != nil && u.name == name {
			do()
			return nil
		}
	}
	return fmt.Errorf("uplink %q: %w", name, ErrUnknown)
}

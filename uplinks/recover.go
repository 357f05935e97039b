package uplinks

// OnRecover says what becomes of the sessions of an uplink when a better one, for which it stood in, works again. New ones take the
// better one in any case.
type OnRecover string

// The values of OnRecover; any other is OnRecoverKeep.
const (
	// OnRecoverKeep lets them stay until they end.
	OnRecoverKeep OnRecover = "keep"
	// OnRecoverDrain has all but TCP leave when they pause, as tunnels do that only keep themselves alive; calls and transfers end
	// first.
	OnRecoverDrain OnRecover = "drain"
	// OnRecoverMove has all but TCP leave with their next packet, and resets TCP towards the inside.
	OnRecoverMove OnRecover = "move"
)

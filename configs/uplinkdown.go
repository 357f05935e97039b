package configs

// downWords are the values of an on_uplink_down, the default of the policy first.
var downWords = []OnUplinkDown{DownReset, DownMove, DownKeep}

func parseOnUplinkDown(s string) (OnUplinkDown, error) {
	return oneOf(s, "what becomes of a connection", downWords)
}

// recoverWords are the values of on_recover of an uplink.
var recoverWords = []OnRecover{RecoverKeep, RecoverDrain, RecoverMove}

func parseOnRecover(s string) (OnRecover, error) {
	return oneOf(s, "what becomes of sessions", recoverWords)
}

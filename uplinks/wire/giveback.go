package wire

import (
	"crypto/sha256"
	"encoding/binary"
)

// GiveBackMAC is the secret source address of frames that are given back to the host's stack by uplink id. Whoever
// captures packets on the uplink lets frames from this address pass, or they would come round again. The address is
// locally administered and unicast, and differs between ids.
func GiveBackMAC(seed uint64, id uint8) [6]byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("tapgw give-back"), seed))
	mac := [6]byte(sum[:6])
	mac[0] = mac[0]&^1 | 2
	mac[5] = id
	return mac
}

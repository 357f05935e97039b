package nat

import "math/bits"

// siphash is SipHash-1-3 of a message of little-endian words: a keyed hash, so that nobody outside can aim sessions at one
// bucket. One and three rounds are what hash tables need and what the kernel's verifier accepts.
func siphash(seed [2]uint64, message ...uint64) uint64 {
	v0, v1 := seed[0]^0x736f6d6570736575, seed[1]^0x646f72616e646f6d
	v2, v3 := seed[0]^0x6c7967656e657261, seed[1]^0x7465646279746573
	for _, m := range message {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3^m)
		v0 ^= m
	}
	tail := uint64(len(message)) * 8 << 56 // the message's length, in the last block
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3^tail)
	v0, v1, v2, v3 = sipRound(v0^tail, v1, v2^0xff, v3)
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	return v0 ^ v1 ^ v2 ^ v3
}

func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v1
	v0 += v3
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}

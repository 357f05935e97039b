package tapgw

import (
	"bytes"

	"tapgw/helper"
	"tapgw/helper/ftp"
	"tapgw/helper/tftp"
	"tapgw/internal/packet"
)

var helped = helper.Set{
	{Proto: packet.ProtoTCP, Port: 21}: ftp.Helper{}, {Proto: packet.ProtoUDP, Port: 69}: tftp.Helper{},
	{Proto: packet.ProtoTCP, Port: 7}: shout{}, {Proto: packet.ProtoUDP, Port: 7}: shout{},
}

// shout is a helper that writes ! instead of each ?, and three for one at the end of a payload.
type shout struct{}

func (shout) Name() string { return "shout" }

func (shout) Begin(helper.Session, helper.Reserve) helper.Conversation { return shout{} }

func (shout) Done() bool { return false }

func (shout) Rewrite(_ helper.Direction, payload []byte) []byte {
	if !bytes.Contains(payload, []byte("?")) {
		return payload
	}
	out := bytes.ReplaceAll(payload, []byte("?"), []byte("!"))
	if payload[len(payload)-1] == '?' {
		out = append(out, "!!"...)
	}
	return out
}

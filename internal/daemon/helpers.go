package daemon

import (
	"tapgw/configs"
	"tapgw/helper"
	"tapgw/helper/ftp"
	"tapgw/helper/irc"
	"tapgw/helper/pptp"
	"tapgw/helper/rtsp"
	"tapgw/helper/sip"
	"tapgw/helper/tftp"
	"tapgw/internal/packet"
)

// helpers are the application helpers that the configuration wants.
func helpers(c *configs.Config) helper.Set {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	set := helper.Set{}
	for _, h := range []struct {
		one       helper.Helper
		wanted    configs.Helper
		protocols []uint8
	}{
		{ftp.Helper{}, c.Helpers.FTP, []uint8{tcp}},
		{tftp.Helper{}, c.Helpers.TFTP, []uint8{udp}},
		{irc.Helper{}, c.Helpers.IRC, []uint8{tcp}},
		{pptp.Helper{}, c.Helpers.PPTP, []uint8{tcp}},
		{rtsp.Helper{}, c.Helpers.RTSP, []uint8{tcp}},
		{sip.Helper{}, c.Helpers.SIP, []uint8{tcp, udp}},
	} {
		for _, port := range h.wanted.Ports {
			for _, proto := range h.protocols {
				if h.wanted.Enabled {
					set[helper.Service{Proto: proto, Port: port}] = h.one
				}
			}
		}
	}
	return set
}

package apiserver

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tapgw/api"
)

// TestBodiesThatNeverComeEnd: who announces a body and sends none holds no connection, with the token or without.
func TestBodiesThatNeverComeEnd(t *testing.T) {
	t.Parallel()
	b, _ := browse(t, newFake(), "0123456789abcdef")
	host := strings.TrimPrefix(b.base, "http://")
	held := make(map[string]net.Conn)
	for _, line := range []string{"POST /sign-in", "GET /v1/status", "GET /style.css", "OPTIONS *"} {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, err = io.WriteString(c, line+" HTTP/1.1\r\nHost: "+host+"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\n")
		if err == nil {
			err = c.SetReadDeadline(time.Now().Add(4 * bodyTimeout))
		}
		if err != nil {
			t.Fatal(err)
		}
		held[line] = c
	}
	for line, c := range held {
		if text, err := io.ReadAll(c); err != nil {
			t.Errorf("%s: %q, then %v", line, text, err)
		}
	}
}

// TestLookersLeaveRoomForOthers: at the dashboard, which every program of the host reaches, nobody takes the places of who follows the
// events by the socket.
func TestLookersLeaveRoomForOthers(t *testing.T) {
	b, c := browse(t, newFake(), "")
	for range maxFollowers {
		b.follow("/v1/live")
	}
	b.want(http.StatusServiceUnavailable, http.MethodGet, "/v1/live")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := c.Events(ctx, func(api.Event) { cancel() }); err != nil {
		t.Error(err)
	}
}

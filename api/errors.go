package api

import (
	"errors"
	"net/http"
)

// What a call can fail with, to be tested with errors.Is. The daemon's backend returns the same values.
var (
	ErrNoDaemon      = errors.New("no daemon answers")          // nothing listens on the socket
	ErrDenied        = errors.New("permission denied")          // the caller may only read
	ErrBadQuestion   = errors.New("that cannot be answered")    // nothing behind the gateway could ask for such a session
	ErrUnknownUplink = errors.New("no such uplink")             // no uplink has that name
	ErrConflict      = errors.New("not possible at present")    // the request contradicts the daemon's state
	ErrBadConfig     = errors.New("the configuration is wrong") // refused, the old one stays in force
	ErrBadRequest    = errors.New("wrong request")              // a parameter makes no sense
	ErrBusy          = errors.New("too many requests at once")  // a limit of the daemon is reached
	ErrStreamEnded   = errors.New("the event stream ended")     // the daemon stopped, or the follower was too slow
)

var statusCodes = []struct {
	err  error
	code int
}{
	{ErrDenied, http.StatusForbidden},
	{ErrBadQuestion, http.StatusBadRequest},
	{ErrBadRequest, http.StatusBadRequest},
	{ErrUnknownUplink, http.StatusNotFound},
	{ErrConflict, http.StatusConflict},
	{ErrBadConfig, http.StatusUnprocessableEntity},
	{ErrBusy, http.StatusServiceUnavailable},
}

// StatusCode returns the HTTP status that stands for err on the wire: 500 when err is none of this package's errors.
func StatusCode(err error) int {
	for _, s := range statusCodes {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return http.StatusInternalServerError
}

// Error is a refusal by the daemon; on the wire it is the body of every answer that is not 2xx.
type Error struct {
	Code    int    `json:"-"`     // HTTP status
	Message string `json:"error"` // what went wrong
	Hint    string `json:"hint"`  // what to do next, or ""
}

// Error returns the message followed by the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// Is matches the error values of this package by the HTTP status.
func (e *Error) Is(target error) bool {
	for _, s := range statusCodes {
		if s.err == target {
			return s.code == e.Code
		}
	}
	return false
}

package e2e

import (
	"errors"
	"syscall"
)

// onSocket does something with the descriptor of a socket.
func onSocket(c syscall.Conn, do func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return onNew(raw, do)
}

// onNew is onSocket for one that is just being made.
func onNew(raw syscall.RawConn, do func(fd int) error) error {
	var failed error
	err := raw.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

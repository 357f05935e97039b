package portal

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// tunnel answers CONNECT (RFC 9110 §9.3.6) until ctx ends; the context of r ends with one direction already.
func (p *proxy) tunnel(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	far, err := p.dial(ctx, r.Host)
	if err != nil {
		fail(w, err)
		return
	}
	defer far.Close()
	near, early, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer near.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
	if _, err := io.WriteString(near, established); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { pass(near, far, far) })
	pass(far, near, early.Reader) // what the browser sent at once is in there
	back.Wait()
}

// pass copies what comes from a connection, which is read by r, to the other until it ends. Silence ends both.
func pass(to, from net.Conn, r io.Reader) {
	buf := make([]byte, maxHeader)
	for {
		limit := time.Now().Add(silence)
		_, _ = from.SetDeadline(limit), to.SetDeadline(limit) // fails where it is closed, and so does what follows
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err == io.EOF {
			if half, ok := to.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	from.Close()
	to.Close()
}

// limited is a listener with so many connections at once as it has slots.
type limited struct {
	net.Listener
	slots chan struct{}
}

func limit(l net.Listener, n int) net.Listener { return limited{l, make(chan struct{}, n)} }

// Accept waits for a slot; all of them are given back when the server closes its connections.
func (l limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// slotted gives its slot back when it is closed.
type slotted struct {
	net.Conn
	free func()
}

func (c *slotted) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// CloseWrite ends one direction.
func (c *slotted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Ports of the servers that StartServers starts.
const (
	PortHTTP    = 80
	PortTCPEcho = 7001
	PortUDPEcho = 7002
	PortBulk    = 7003
)

const (
	maxConns  = 4096             // concurrent connections of one server
	maxBytes  = 1 << 40          // bytes of one transfer
	idleLimit = 10 * time.Minute // without a byte, after which a server gives a connection up
	maxPacket = 65535            // bytes of an IPv4 packet
)

// Servers are running servers that listen on every address of a namespace.
type Servers struct {
	closers []io.Closer
	tasks   sync.WaitGroup
}

// StartServers starts an HTTP server (NewHandler), TCP and UDP echo, the bulk server, and the resolvers, on their ports.
func StartServers(n *Namespace) (*Servers, error) {
	s := &Servers{}
	err := errors.Join(
		s.startHTTP(n, PortHTTP, NewHandler()),
		s.startTCP(n, PortTCPEcho, echo),
		s.startTCP(n, PortBulk, serveBulk),
		s.startUDPEcho(n, "udp4", PortUDPEcho),
		s.startUDPEcho(n, "udp6", PortUDPEcho),
		s.startResolvers(n),
	)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// StartHTTP serves handler on a TCP port of every address of the namespace.
func StartHTTP(n *Namespace, port int, handler http.Handler) (*Servers, error) {
	s := &Servers{}
	if err := s.startHTTP(n, port, handler); err != nil {
		return nil, err
	}
	return s, nil
}

// Close stops the servers, cuts their connections and waits for them.
func (s *Servers) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.closers = nil
	s.tasks.Wait()
	return errors.Join(errs...)
}

func (s *Servers) startHTTP(n *Namespace, port int, handler http.Handler) error {
	l, err := n.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("start HTTP server: %w", err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: dialTimeout, IdleTimeout: idleLimit}
	s.closers = append(s.closers, server)
	s.tasks.Go(func() { _ = server.Serve(l) }) // ends with ErrServerClosed
	return nil
}

// NewHandler answers /bytes?n=N with N deterministic bytes, /upload with size and SHA-256 of the body, /whoami with the
// client's address and port, /generate_204 as connectivity checks expect.
func NewHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", serveBytes)
	mux.HandleFunc("/upload", serveUpload)
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })
	mux.HandleFunc("GET /generate_204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return mux
}

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseUint(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n > maxBytes {
		http.Error(w, "n must be a number of bytes", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatUint(n, 10))
	_ = writePattern(w, newPattern(n), n) // the client sees a short body
}

func serveUpload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, http.MaxBytesReader(w, r.Body, maxBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d %s", n, hex.EncodeToString(sum.Sum(nil)))
}

// writePattern writes n bytes of p.
func writePattern(w io.Writer, p *pattern, n uint64) error {
	for n > 0 {
		b := p.next(int(min(n, patternLen)))
		if _, err := w.Write(b); err != nil {
			return err
		}
		n -= uint64(len(b))
	}
	return nil
}

// startTCP serves each connection with serve until it returns; connections over the limit are closed at once.
func (s *Servers) startTCP(n *Namespace, port int, serve func(net.Conn)) error {
	l, err := n.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("start TCP server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.closers = append(s.closers, l, closerFunc(cancel))
	slots := make(chan struct{}, maxConns)
	s.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a client that left before it was accepted
			}
			select {
			case slots <- struct{}{}:
			default:
				conn.Close()
				continue
			}
			s.tasks.Go(func() {
				defer func() { <-slots }()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				defer conn.Close()
				serve(idleConn{conn})
			})
		}
	})
	return nil
}

// closerFunc makes a cancel function an io.Closer.
type closerFunc func()

func (f closerFunc) Close() error { f(); return nil }

// idleConn gives up when nothing moves for idleLimit.
type idleConn struct{ net.Conn }

func (c idleConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c idleConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(idleLimit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

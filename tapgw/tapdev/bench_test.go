package tapdev_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// The benchmarks measure TAP → wire and back against the kernel's own masquerade, with senders in processes of their own:
//
//	go test -bench . -benchtime 2s -run '^$' ./tapgw/tapdev

const roleVar = "TAPGW_TAPDEV_ROLE"

func TestMain(m *testing.M) {
	role, arg, _ := strings.Cut(os.Getenv(roleVar), "=")
	switch role {
	case "tcp-send":
		dialTCP(arg, unix.SYS_WRITE)
	case "tcp-sink":
		dialTCP(arg, unix.SYS_READ)
	case "tcp-serve":
		serveTCP(arg, unix.SYS_READ)
	case "tcp-source":
		serveTCP(arg, unix.SYS_WRITE)
	case "udp-flood":
		floodUDP()
	default:
		os.Exit(m.Run())
	}
}

// child starts this binary in another role inside ns; it is killed when the benchmark ends.
func child(b *testing.B, ns *lab.Namespace, role string) *lab.Cmd {
	b.Helper()
	exe, err := os.Executable()
	labtest.Must(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	c := ns.Command(ctx, exe)
	c.Env = append(os.Environ(), roleVar+"="+role)
	c.Stderr = os.Stderr
	labtest.Must(b, c.Start())
	b.Cleanup(func() { cancel(); _ = c.Wait() })
	return c
}

// serveTCP and dialTCP use blocking sockets past the scheduler, so that they cost what a C program does.
func serveTCP(addr string, call uintptr) {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	pump(c, call)
}

func dialTCP(addr string, call uintptr) {
	for {
		c, err := net.Dial("tcp4", addr)
		if err == nil {
			pump(c, call)
		}
		time.Sleep(20 * time.Millisecond) // the server starts at the same time
	}
}

func pump(c net.Conn, call uintptr) {
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		panic(err)
	}
	fd := f.Fd() // makes it blocking
	for buf := make([]byte, 1<<17); ; {
		n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		if errno != 0 && errno != unix.EINTR || errno == 0 && n == 0 {
			panic(errno)
		}
	}
}

// rate reports how fast a counter rises, and what CPU time this process (the forwarder) spends on each unit: the second is
// the one to compare on a machine that others use too.
func rate(b *testing.B, unit string, counter func() uint64) {
	awaitTraffic(b, counter)
	from, start, used := counter(), time.Now(), cpuTime(b)
	time.Sleep(time.Second)
	n := float64(counter() - from)
	b.ReportMetric(n/time.Since(start).Seconds()/1e6, "M"+unit+"/s")
	b.ReportMetric(float64(cpuTime(b)-used)/n, "cpu-ns/"+unit)
	b.ReportMetric(0, "ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	var r unix.Rusage
	labtest.Must(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func awaitTraffic(b *testing.B, counter func() uint64) {
	from := counter()
	for range 100 {
		time.Sleep(50 * time.Millisecond)
		if counter() > from+20 {
			return
		}
	}
	b.Fatal("no traffic")
}

func received(b *testing.B, ns *lab.Namespace, device string) (packets, bytes uint64) {
	link, err := ns.Handle().LinkByName(device)
	labtest.Must(b, err)
	return link.Attrs().Statistics.RxPackets, link.Attrs().Statistics.RxBytes
}

func paths(b *testing.B, run func(b *testing.B, w *world)) {
	b.Run("kernel", func(b *testing.B) {
		w := newWorld(b, 0)
		addDefault(b, w.gw, "wan1", ispAddr.String())
		labtest.Must(b, w.gw.Masquerade("wan1"))
		run(b, w)
	})
	for _, queues := range []int{1, 2} {
		for _, batch := range []int{16, 64} {
			b.Run(fmt.Sprintf("userspace/queues=%d/batch=%d", queues, batch), func(b *testing.B) {
				w := newWorld(b, queues)
				w.forward(lanAddr, batch)
				run(b, w)
				b.Logf("%+v", w.port.Stats())
			})
		}
	}
}

// BenchmarkTCPUpload is one bulk connection from the LAN, in MB/s.
func BenchmarkTCPUpload(b *testing.B) {
	paths(b, func(b *testing.B, w *world) {
		child(b, w.isp, "tcp-serve="+server.String()+":5001")
		child(b, w.lan, "tcp-send="+server.String()+":5001")
		rate(b, "byte", func() uint64 { _, n := received(b, w.isp, "cust"); return n })
	})
}

// BenchmarkTCPDownload is one bulk connection towards the LAN, in MB/s.
func BenchmarkTCPDownload(b *testing.B) {
	paths(b, func(b *testing.B, w *world) {
		child(b, w.isp, "tcp-source="+server.String()+":5001")
		child(b, w.lan, "tcp-sink="+server.String()+":5001")
		rate(b, "byte", func() uint64 { _, n := received(b, w.lan, "eth0"); return n })
	})
}

// BenchmarkUDP is a flood of 60-byte frames from the LAN, in Mpps arriving at the provider.
func BenchmarkUDP(b *testing.B) {
	paths(b, func(b *testing.B, w *world) {
		labtest.Must(b, w.isp.Silence("cust", true)) // counted, then dropped
		child(b, w.lan, "udp-flood")
		rate(b, "packet", func() uint64 { n, _ := received(b, w.isp, "cust"); return n })
	})
}

func floodUDP() {
	const packets = 64
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: server.As4()}); err != nil {
		panic(err)
	}
	type mmsg struct {
		hdr unix.Msghdr
		n   uint32
		_   [4]byte
	}
	buf := make([]byte, 18)
	iov := unix.Iovec{Base: &buf[0], Len: 18}
	var msgs [packets]mmsg
	for i := range msgs {
		msgs[i].hdr.Iov, msgs[i].hdr.Iovlen = &iov, 1
	}
	for {
		_, _, _ = unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[0])), packets, 0, 0, 0)
	}
}

package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// recording is a running `tapgw capture`.
type recording struct {
	t    *testing.T
	cmd  *lab.Cmd
	said *bufio.Reader
	file string
}

// capture begins one, and waits until it records.
func (w world) capture(t *testing.T, args ...string) *recording {
	t.Helper()
	r := &recording{t: t, file: filepath.Join(t.TempDir(), "c.pcapng")}
	args = append([]string{"capture", "--socket", w.socket(), "-w", r.file, "--duration", patience.String()}, args...)
	r.cmd = w.Gateway.Command(labtest.Context(t), binary(t), args...)
	stderr, err := r.cmd.StderrPipe()
	labtest.Must(t, err)
	labtest.Must(t, r.cmd.Start())
	r.said = bufio.NewReader(stderr)
	if line, err := r.said.ReadString('\n'); err != nil || !strings.HasPrefix(line, "Recording before translation at") {
		rest, _ := io.ReadAll(r.said)
		t.Fatalf("%v: %s%s", err, line, rest)
	}
	return r
}

// seen is a packet of a capture.
type seen struct {
	device, side string
	gopacket.Packet
}

// end stops it as Ctrl-C does and reads the file.
func (r *recording) end() (list []seen) {
	r.t.Helper()
	labtest.Must(r.t, r.cmd.Process.Signal(syscall.SIGINT))
	return r.wait()
}

// wait reads the file once the recording has ended.
func (r *recording) wait() (list []seen) {
	r.t.Helper()
	said, err := io.ReadAll(r.said)
	labtest.Must(r.t, err)
	if err := r.cmd.Wait(); err != nil {
		r.t.Fatalf("%v: %s", err, said)
	}
	f, err := os.Open(r.file)
	labtest.Must(r.t, err)
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		r.t.Errorf("%v, %v", info, err)
	}
	options := pcapgo.DefaultNgReaderOptions
	options.WantMixedLinkType = true
	reader, err := pcapgo.NewNgReader(f, options)
	labtest.Must(r.t, err)
	for {
		data, info, err := reader.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return list
		}
		labtest.Must(r.t, err)
		i, err := reader.Interface(info.InterfaceIndex)
		labtest.Must(r.t, err)
		list = append(list, seen{i.Name, i.Description, gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)})
	}
}

// passed counts the packets with a payload that passed one side from one endpoint to another.
func passed(list []seen, side string, from, to netip.AddrPort, payload []byte) (n int) {
	for _, p := range list {
		if !strings.HasPrefix(p.side, side) || p.NetworkLayer() == nil || p.TransportLayer() == nil || !bytes.Contains(p.TransportLayer().LayerPayload(), payload) {
			continue
		}
		if endOf(p, true) == from && endOf(p, false) == to {
			n++
		}
	}
	return n
}

// endOf is the source of a packet, or its destination.
func endOf(p seen, source bool) netip.AddrPort {
	n, t := p.NetworkLayer().NetworkFlow(), p.TransportLayer().TransportFlow()
	host, port := n.Dst(), t.Dst()
	if source {
		host, port = n.Src(), t.Src()
	}
	return netip.MustParseAddrPort(net.JoinHostPort(host.String(), port.String()))
}

// TestCaptureSeesBothSides: established sessions of the LAN and of the host itself, in both directions, before their translation
// and after it, whoever carries them.
func TestCaptureSeesBothSides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ on, config string }{
		{api.DatapathKernel, inTurn}, {api.DatapathKernel, inTurn + "datapath: {lan_shortcut: off}\n"}, {api.DatapathUserspace, inTurn},
	} {
		t.Run(c.on, func(t *testing.T) {
			t.Parallel()
			w := beginOn(t, lab.Options{}, c.on, c.config)
			clients := []talker{w.connect(w.lan, "wan1"), w.connect(w.Gateway, "wan1"), w.connect(w.lan, "wan2")}
			r := w.capture(t, "--uplink", "wan1")
			for i, c := range clients {
				labtest.Must(t, c.say(fmt.Sprintf("saying %d", i)))
			}
			fresh := w.connect(w.lan, "wan1")
			labtest.Must(t, fresh.say("saying 3"))
			list := r.end()
			for i, c := range append(clients, fresh) {
				w.expectBothSides(c, list, fmt.Sprintf("saying %d", i))
			}
			if s := w.status(); len(s.DatapathBypasses) > 0 {
				t.Errorf("the capture is called a bypass: %q", s.DatapathBypasses)
			}
		})
	}
}

// TestCaptureSeesIPv6 does the same of it.
func TestCaptureSeesIPv6(t *testing.T) {
	t.Parallel()
	w := beginV6(t, lab.Options{}, inTurn)
	clients := []talker{w.connect(w.lan, "wan1"), w.connect(w.Gateway, "wan1")}
	r := w.capture(t, "--uplink", "wan1")
	for i, c := range clients {
		labtest.Must(t, c.say(fmt.Sprintf("saying %d", i)))
	}
	list := r.end()
	for i, c := range clients {
		w.expectBothSides(c, list, fmt.Sprintf("saying %d", i))
	}
}

// say has the server echo a text.
func (c talker) say(text string) error {
	if err := c.talk(); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, len(text)))
	return err
}

// expectBothSides looks for a text in both directions on both sides if the client uses wan1, and for none if it does not.
func (w world) expectBothSides(c talker, list []seen, text string) {
	w.t.Helper()
	s, ok := w.session("tcp", portOf(c))
	if !ok {
		w.t.Fatal("no session")
	}
	for side, local := range map[string]netip.AddrPort{"before translation": s.Inside, "after translation": s.Outside} {
		out, in := passed(list, side, local, s.Remote, []byte(text)), passed(list, side, s.Remote, local, []byte(text))
		if wanted := c.uplink == "wan1"; wanted != (out > 0) || wanted != (in > 0) {
			w.t.Errorf("%q of %s by %s: %d packets out, %d in", text, s.Inside, side, out, in)
		}
	}
}

// TestCaptureOfOneSession takes no packet of another, and ends by its own bounds.
func TestCaptureOfOneSession(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	one, other := w.connect(w.lan, "wan1"), w.connect(w.lan, "wan1")
	s, _ := w.session("tcp", portOf(one))
	r := w.capture(t, "--uplink", "wan1", "--session", "tcp:"+s.Inside.String(), "--count", "8")
	for range 4 {
		labtest.Must(t, other.say("another"))
		labtest.Must(t, one.say("this one"))
	}
	list := r.wait()
	if len(list) != 8 {
		t.Errorf("%d packets", len(list))
	}
	for _, p := range list {
		if from, to := endOf(p, true), endOf(p, false); from != s.Inside && from != s.Outside && to != s.Inside && to != s.Outside {
			t.Errorf("a packet of another session: %s", p)
		}
	}
}

// TestCaptureNeedsRoot says so.
func TestCaptureNeedsRoot(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "")
	program := copyForAll(t, binary(t))
	w.openToAll()
	cmd := w.Gateway.Command(t.Context(), program, "capture", "--uplink", "wan1", "--socket", w.socket(), "-w", "/dev/null")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "sudo") {
		t.Errorf("%v: %s", err, out)
	}
}

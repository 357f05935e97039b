package capture

import (
	"encoding/binary"
	"errors"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/perf"
	"golang.org/x/sys/unix"
)

// What the program reports before the bytes of a packet: the time since the start of the machine, and the length.
const (
	metaLen   = 16
	maxReport = 60 << 10 // of a packet, as a record of perf has no more than 64 KiB
	ringRoom  = 4 << 20  // bytes of each processor
)

// program reports what goes out by a device, before any other program sees it.
type program struct {
	link   link.Link
	loaded *ebpf.Program
	events *ebpf.Map
	reader *perf.Reader
	began  time.Time     // when the clock of the program was 0
	ended  chan struct{} // closed when read returns
	lost   int           // until then read's alone
}

// ErrNoProgram means that the kernel takes no program here: before Linux 6.6, or without CAP_BPF.
var ErrNoProgram = errors.New("the kernel takes no program for what goes out")

func openProgram(index int) (*program, error) {
	p := &program{began: booted(), ended: make(chan struct{})}
	err := p.load()
	if err == nil {
		p.link, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: p.loaded, Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
	}
	if err != nil {
		_, closing := p.close()
		return nil, errors.Join(ErrNoProgram, err, closing)
	}
	return p, nil
}

// booted is when the monotonic clock was 0, as that of the machine goes now.
func booted() time.Time {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // never fails
	return time.Now().Add(-time.Duration(t.Nano()))
}

func (p *program) load() (err error) {
	if p.events, err = ebpf.NewMap(&ebpf.MapSpec{Name: "tapgw_capture", Type: ebpf.PerfEventArray}); err != nil {
		return err
	}
	if p.reader, err = perf.NewReader(p.events, ringRoom/max(runtime.NumCPU()/4, 1)); err != nil {
		return err
	}
	p.loaded, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "tapgw_capture", Type: ebpf.SchedCLS, License: "GPL", Instructions: report(p.events.FD())})
	return err
}

// report is a program that reports a packet and lets the next program have it.
func report(events int) asm.Instructions {
	const (
		currentCPU = 0xffffffff // BPF_F_CURRENT_CPU
		lengthBits = 32         // where the number of bytes stands in the flags
		next       = -1         // TCX_NEXT
	)
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 0, asm.Word), // __sk_buff.len
		asm.StoreMem(asm.RFP, -8, asm.R7, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord),
		asm.JLE.Imm(asm.R7, maxReport, "whole"),
		asm.Mov.Imm(asm.R7, maxReport),
		asm.LSh.Imm(asm.R7, lengthBits).WithSymbol("whole"),
		asm.LoadImm(asm.R3, currentCPU, asm.DWord),
		asm.Or.Reg(asm.R3, asm.R7),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, events),
		asm.Mov.Reg(asm.R4, asm.RFP),
		asm.Add.Imm(asm.R4, -metaLen),
		asm.Mov.Imm(asm.R5, metaLen),
		asm.FnPerfEventOutput.Call(),
		asm.Mov.Imm(asm.R0, next),
		asm.Return(),
	}
}

func (p *program) read(take func(time.Time, []byte, int)) error {
	defer close(p.ended)
	var r perf.Record
	for {
		if err := p.reader.ReadInto(&r); err != nil {
			return err
		}
		p.lost += int(r.LostSamples)
		if len(r.RawSample) < metaLen {
			continue
		}
		at := p.began.Add(time.Duration(binary.NativeEndian.Uint64(r.RawSample)))
		length := int(binary.NativeEndian.Uint64(r.RawSample[8:]))
		data := r.RawSample[metaLen:]
		take(at, data[:min(length, len(data))], length) // records are padded
	}
}

// close has read take what was reported before.
func (p *program) close() (lost int, err error) {
	var errs []error
	if p.link != nil {
		errs = append(errs, p.link.Close(), p.reader.Flush())
		<-p.ended
	}
	if p.reader != nil {
		errs = append(errs, p.reader.Close())
	}
	if p.events != nil {
		errs = append(errs, p.events.Close())
	}
	if p.loaded != nil {
		errs = append(errs, p.loaded.Close())
	}
	return p.lost, errors.Join(errs...)
}

package tapdev

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// steer has the kernel choose among several queues by processor, not by flow.
func (d *Device) steer() error {
	if len(d.queues) < 2 {
		return nil
	}
	processor, err := ebpf.NewProgram(&ebpf.ProgramSpec{ // the kernel takes the remainder
		Name: "tapgw_queue", Type: ebpf.SocketFilter, Instructions: asm.Instructions{asm.FnGetSmpProcessorId.Call(), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load the program that chooses queues: %w", err)
	}
	defer processor.Close() // the device holds it
	fd, err := d.queues[0].file.Acquire()
	if err != nil {
		return err
	}
	defer d.queues[0].file.Release()
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETSTEERINGEBPF, processor.FD()); err != nil {
		return fmt.Errorf("TUNSETSTEERINGEBPF: %w", err)
	}
	return nil
}

package fastpath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Why there is no fast path. The userspace datapath does without.
var (
	ErrPermission  = errors.New("fastpath: not allowed to use BPF, grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
	ErrUnsupported = errors.New("fastpath: this kernel lacks what the fast path needs, use Linux 6.6 or later with BPF")
	ErrRefused     = errors.New("fastpath: the kernel's verifier refuses the program, please report it with the kernel's version")
	ErrMemory      = errors.New("fastpath: not enough memory for the session table, lower nat.max_sessions")
)

// errClosed is for calls after Close.
var errClosed = errors.New("fastpath: closed")

// explain adds the sentinel that says why the kernel said no.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.As(err, &verifier) && !errors.Is(err, unix.EPERM): // the verifier says EACCES too
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.Is(err, os.ErrPermission) || errors.Is(err, ebpf.ErrRestrictedKernel):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	return err
}

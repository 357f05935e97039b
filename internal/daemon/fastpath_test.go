package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tapgw/configs"
	"tapgw/internal/metrics"
	"tapgw/nat"
	"tapgw/tapgw/fastpath"
)

func TestWhyNoFastPath(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string // how it begins
		code metrics.Reason
	}{
		{fmt.Errorf("%w: %w", fastpath.ErrPermission, unix.EPERM), "not allowed to use BPF", metrics.ReasonPermission},
		{fmt.Errorf("%w: %w", fastpath.ErrUnsupported, unix.ENOSYS), "this kernel lacks", metrics.ReasonUnsupported},
		{fmt.Errorf("%w: %w", fastpath.ErrRefused, unix.EINVAL), "the kernel's verifier refuses", metrics.ReasonRefused},
		{fmt.Errorf("%w: %w", fastpath.ErrMemory, unix.ENOMEM), "not enough memory", metrics.ReasonMemory},
		{errors.New("fastpath: attach: no such device\nand a log of many lines"), "attach: no such device", metrics.ReasonOther},
	} {
		got := explainFastPath(errors.Join(c.err, errors.New("and what followed")))
		if !strings.HasPrefix(got.text, c.text) || strings.ContainsAny(got.text, "\n") || got.code != c.code {
			t.Errorf("%v is told as %+v, want %q and %s", c.err, got, c.text, c.code)
		}
	}
}

// TestWhoCarries: the command line wins over the file, and only who asks for the kernel alone is refused without it.
func TestWhoCarries(t *testing.T) {
	for _, c := range []struct {
		option  string
		file    configs.DatapathMode
		want    configs.DatapathMode
		refused bool
	}{
		{"", configs.DatapathAuto, configs.DatapathAuto, false}, {"", configs.DatapathKernel, configs.DatapathKernel, true},
		{"userspace", configs.DatapathKernel, configs.DatapathUserspace, false}, {"kernel", configs.DatapathUserspace, configs.DatapathKernel, true},
		{"auto", configs.DatapathKernel, configs.DatapathAuto, false},
	} {
		config := configs.Default()
		config.Datapath.Mode = c.file
		d := newDaemon(Options{Logger: slog.New(slog.DiscardHandler), Datapath: c.option}, &configs.Loaded{Config: config})
		if got := d.datapathMode(); got != c.want {
			t.Errorf("%q over %q: %q, want %q", c.option, c.file, got, c.want)
		}
		err := d.withoutFastPath(fastpath.ErrMemory)
		if refused := errors.Is(err, fastpath.ErrMemory); refused != c.refused || !refused && (err != nil || d.noFast.code != metrics.ReasonMemory) {
			t.Errorf("%q over %q, without a fast path: error %v, reason %+v", c.option, c.file, err, d.noFast)
		}
	}
}

func TestUserspaceLoadsNothing(t *testing.T) {
	d := newTestDaemon(t)
	var n nat.Config
	if err := d.loadFastPath(&n, nil); err != nil || d.fast != nil || n.Memory != nil || d.noFast.code != metrics.ReasonConfigured {
		t.Errorf("error %v, programs %v, reason %+v", err, d.fast, d.noFast)
	}
}

# tapgw: `make demo` shows it, `make test` proves it. Both use sudo by themselves when they are not root.
SHELL   := /bin/bash
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
SUDO    := $(shell test "$$(id -u)" = 0 || echo sudo -E env "PATH=$$PATH")
# Test binaries are compiled by the caller and run as root, so that no file of root's ends up in the caller's caches.
EXEC    := $(if $(SUDO),-exec "$(SUDO)")
LINT     = bin/golangci-lint
NFPM     = bin/nfpm
PACKAGE_VERSION ?= $(shell tools/package-version)
# Counted, because a fuzzer that ends by the clock now and then fails for no reason (go.dev/issue/75804).
FUZZTIME ?= 20000x
SOAKTIME ?= 10m
# How much of TestDifferential, and which.
STEPS    ?= 3000
SEED     ?= 2
# The compiler of the committed BPF programs: what another version makes of them differs.
CLANG   ?= clang-14
BPF_DIRS = $(shell grep -rl --exclude-dir=bin --include='*.go' '^//go:generate.*bpf2go' . | xargs -n1 dirname | sort -u)

.PHONY: all build man package demo test lint unit peers e2e fuzz differential soak bench bench-failover balance bpf-compiler generate generated clean help

all: build

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

build: ## build bin/tapgw and bin/tapgw-tray
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/tapgw ./cmd/tapgw-tray

# The date of the pages is that of the sources.
man: build ## manual pages into bin/man
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || date +%s) bin/tapgw man bin/man

$(NFPM): tools/nfpm/go.mod tools/nfpm/go.sum
	cd tools/nfpm && $(GO) build -o ../../$(NFPM) github.com/goreleaser/nfpm/v2/cmd/nfpm

package: man $(NFPM) ## .deb and .rpm in bin/packages
	GO=$(GO) VERSION=$(PACKAGE_VERSION) packaging/build bin/packages

demo: build ## two shaped ISPs, one is cut and returns, in namespaces of its own
	$(SUDO) ./bin/tapgw demo

test: build generated lint unit e2e fuzz ## all tests
	@echo "all tests passed"

$(LINT): tools/go.mod tools/go.sum
	cd tools && $(GO) build -o ../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

lint: $(LINT) ## go vet, staticcheck and others
	$(GO) vet ./...
	$(LINT) run ./...

# The whole simulation is arithmetic, which the race detector makes 18 times slower: it watches a short one.
unit: ## tests of the packages, with the race detector
	$(GO) test -race $(EXEC) $$($(GO) list ./... | grep -v -e /e2e -e /bench/balance)
	$(GO) test ./bench/balance
	$(GO) test -race -run Report ./bench/balance

# Tests whose packets also take the other datapath; the rest is about something else, or about the kernel's.
USERSPACE := Traffic|Unusual|OpenRelay|Hostile|Trailers|Thousand|TableFull|Large|Fragment|Inbound|SocketsIn|PortsNobody
USERSPACE := $(USERSPACE)|CarrierLoss|Blackhole|SessionsOf|FlowsOf|AllUplinksDown|SingleUplink|CleanStop|Kill|StopCloses|Repair
USERSPACE := $(USERSPACE)|Static|Host|OtherProtocols|IPv6|OwnIPv6|NPTv6|Renumbered|Pause|ByteShares|MTU|Unplug|Lifetimes|Checksums|RFC|MW|Rules|Differential|Fault|Failover

# Programs of others that the tests talk to the gateway with: a program and its Debian package; and one in Go.
PEERS := traceroute=traceroute tracepath=iputils-tracepath sipp=sip-tester iptables-nft-restore=iptables nft=nftables curl=curl busybox=busybox debootstrap=debootstrap tmux=tmux chromium=chromium dnsmasq=dnsmasq-base
# A session bus, a display and a real panel for the applet.
PEERS += dbus-daemon=dbus-daemon Xvfb=xvfb xfce4-panel=xfce4-panel xfconf-query=xfconf xdotool=xdotool
# What the packages are installed in, and what tests boot.
ROOT := systemd-sysv dbus rpm
# One that would take over the machine's own resolv.conf if it were installed.
RESOLVED := systemd-resolved libsystemd-shared
# One that would start a server; of it the tests need promtool.
PROMETHEUS := prometheus
# What finds where a page cannot be used with a screen reader: a script, of which the tests' browser alone has need.
AXE   := axe-core 4.14.1 axe.min.js 29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
# One that would take over the machine's network, and the libraries that it needs beyond those of the system that tests boot.
NETWORKMANAGER := network-manager libnm0 libglib2.0-0 libndp0 libpsl5 libcurl3-gnutls libnghttp2-14 librtmp1 libssh2-1 libbrotli1
NETWORKMANAGER += libldap-2.5-0 libsasl2-2 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1
STUN  := github.com/pion/stun/v3/cmd/stun-nat-behaviour

peers: ## programs of others that the tests use
	@tools/peers $(PEERS) -- $(SUDO)
	@tools/unpack bin/resolved $(RESOLVED) -- $(SUDO)
	@tools/unpack bin/prometheus $(PROMETHEUS) -- $(SUDO)
	@tools/unpack bin/networkmanager $(NETWORKMANAGER) -- $(SUDO)
	@tools/root bin/root $(ROOT) -- $(SUDO)
	@tools/from-npm bin/axe.min.js $(AXE)
	$(GO) build -o bin/$(notdir $(STUN)) $(STUN)

e2e: package peers ## the daemon on real packets, with the kernel's datapath and with its own
	$(GO) test $(EXEC) -timeout 15m ./e2e/...
	E2E_DATAPATH=userspace $(GO) test $(EXEC) -timeout 15m -run '^Test($(USERSPACE))' ./e2e/...

fuzz: ## every fuzzer for FUZZTIME (runs, or a duration), none needs root
	@set -e; for pkg in $$(grep -rl --exclude-dir=bin --include=*_test.go '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -h '^func Fuzz' $$pkg/*_test.go | sed -E 's/func (Fuzz[A-Za-z0-9_]*).*/\1/'); do \
	    echo "fuzz $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1000x $$pkg; done; done

differential: build ## STEPS things that hosts do, behind the gateway and behind the kernel's masquerade, compared
	DIFFERENTIAL_STEPS=$(STEPS) DIFFERENTIAL_SEED=$(SEED) $(GO) test $(EXEC) -timeout 0 -run Differential ./e2e/...
	DIFFERENTIAL_STEPS=$(STEPS) DIFFERENTIAL_SEED=$(SEED) E2E_DATAPATH=userspace $(GO) test $(EXEC) -timeout 0 -run Differential ./e2e/...

soak: build ## the daemon under load and faults for SOAKTIME
	SOAK_DURATION=$(SOAKTIME) $(GO) test $(EXEC) -timeout 0 -run Soak ./e2e/...

bench: build ## the figures of bench/README.md: ratios to the kernel's own masquerade
	$(GO) build -o bin/tapgw-bench ./bench
	$(SUDO) ./bin/tapgw-bench $(BENCHFLAGS)

bench-failover: build ## how fast dead uplinks are seen and got over, and how often they are not
	$(GO) build -o bin/tapgw-bench ./bench
	$(SUDO) ./bin/tapgw-bench failover $(BENCHFLAGS)

balance: ## how schedulers spread published traffic over uplinks, simulated
	$(GO) run ./bench/balance $(BALANCEFLAGS)

bpf-compiler: ## install the compiler of the BPF programs where it is missing
	@tools/bpf-compiler $(CLANG) $(SUDO)

generate: bpf-compiler ## compile the BPF programs again
	BPF2GO_CC=$(CLANG) $(GO) generate $(BPF_DIRS)

generated: bpf-compiler ## fail when the committed BPF programs are not what their sources compile to
	BPF2GO_CC=$(CLANG) GO=$(GO) tools/generated $(BPF_DIRS)

clean: ## remove what was built
	$(SUDO) rm -rf bin

# husk: see README.md. Every target works on a fresh clone; those that need
# packages of the distribution install what is missing (tests/install).

GO      ?= go
FUZZTIME ?= 20s
SOAK    ?= 10m
export CGO_ENABLED ?= 0

version := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
guestinit := internal/guestinit/bin/husk-init

.PHONY: build demo test test-go test-race test-kvm lab-test fuzz soak bench lint docs kernels clean

build: bin/husk

# The guest's first process is embedded in husk, so it is built first. Go knows
# best what is out of date.
#
# disablethp keeps Go's own heap, which is small, off huge pages: where the host
# gives them to everybody, two of them are 2.5 MiB that nobody uses. Guest RAM
# asks for its huge pages itself. The variable is what GODEBUG sets, too.
.PHONY: bin/husk $(guestinit)
$(guestinit):
	@$(GO) build -trimpath -ldflags='-s -w' -o $@ ./cmd/husk-init
bin/husk: $(guestinit)
	@$(GO) build -trimpath -ldflags='-s -w -X main.version=$(version) -X runtime.godebugDefault=disablethp=1' -o $@ ./cmd/husk

# A guest's program, for tests.
.PHONY: bin/hostile
bin/hostile:
	@$(GO) build -trimpath -ldflags='-s -w' -o $@ ./tests/hostile

# Boot a guest: prints what it sees, and gives a shell on a terminal.
demo: build
	@GO='$(GO)' tests/run-demo

# Everything a change must pass: pure tests, KVM's where it opens, whole boots in the lab.
test: build
	@tests/install kernels qemu iasl disktools debian images erofs
	$(GO) vet ./...
	$(GO) test ./...
	$(MAKE) test-race test-kvm lab-test

test-go:
	$(GO) test ./...

# The race detector wants cgo.
test-race:
	@tests/install cc
	CGO_ENABLED=1 $(GO) test -race -short ./...

# The tests that need /dev/kvm; skipped, and said so, where it does not open. Those of
# vmmtest boot stock kernels, which not every KVM does: the lab has them.
test-kvm:
	@if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then \
		REQUIRE_KVM=1 $(GO) test -count=1 $$($(GO) list ./kvm/... ./vmm/... ./internal/doctor/... | grep -v /vmmtest); \
	else echo "test-kvm: skipped, /dev/kvm cannot be opened here"; fi

# KVM tests and end-to-end boots in a machine with a complete KVM.
lab-test: build bin/hostile
	@tests/install kernels qemu disktools debian images cc
	@GO='$(GO)' tests/lab-test

# Every fuzzer in turn, for FUZZTIME each.
fuzz:
	@FUZZTIME=$(FUZZTIME) GO='$(GO)' tests/fuzz

# What is too long for every change; SOAK is the time it takes.
soak: build bin/hostile
	@tests/install kernels qemu disktools debian iperf3
	@SOAK=$(SOAK) GO='$(GO)' tests/soak

# husk beside the other VMMs found on PATH: boots, disks, networks (BENCH="--what disk,net" for some).
bench: build
	@tests/install kernels qemu
	@$(GO) run ./tests/bench $(BENCH)

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	golangci-lint run

# The CLI reference is made from the table of verbs.
docs:
	$(GO) test ./cmd/husk -run TestReference -update

kernels:
	@tests/install kernels

clean:
	rm -rf bin $(guestinit)

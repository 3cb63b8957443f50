# Evently's chores. `make help` lists them.

GO       ?= go
PACKAGES ?= ./...
GOLANGCI  = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT   = mvdan.cc/gofumpt@v0.12.0
BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

.DEFAULT_GOAL := help
.PHONY: help build run test race lint fmt generate deploy ladder soak cover bench bench-baseline bench-compare ci

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 16

build: ## Build bin/evently
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/evently ./cmd/evently

run: build ## Run a node with its own Postgres and the demo catalogue
	bin/evently up --demo

test: ## Run all tests; PACKAGES=./store/... runs some
	$(GO) test $(PACKAGES)

race: ## Run all tests with the race detector, in random order
	$(GO) test -race -shuffle=on $(PACKAGES)

lint: ## Run every linter of .golangci.yml (the first run builds them: about 3 minutes)
	$(GO) run $(GOLANGCI) run --allow-serial-runners $(PACKAGES)

fmt: ## Format the code
	$(GO) run $(GOFUMPT) -w .

generate: ## Renew generated files: the settings table in README.md and go:generate directives
	$(GO) generate $(PACKAGES)
	$(GO) test ./cmd/evently -run TestREADME -update

deploy: ## Check deploy/ by the programs that read it: linters, strict schemas, promtool, systemd-analyze
	cd deploy/check && $(GO) vet ./... && $(GO) test -count=1 ./...

ladder: ## Cut, kill, pause and heal five nodes at random, RUNGS=100 times from SEED on, about 11 seconds each
	$(GO) test ./cmd/evently/faults -run TestPartition_FiveNodes -count=1 -v -timeout 3h -long \
		-rungs=$(or $(RUNGS),100) -seed=$(or $(SEED),$(shell date +%s))

soak: ## Let a node work for SOAK=10m and fail if it takes more and more memory or goroutines
	$(GO) test ./cmd/evently/soak -run TestSoak -count=1 -v -timeout 25h -soak=$(or $(SOAK),10m)

cover: ## Measure test coverage: coverage.html and a line for each package
	$(GO) test -coverpkg=./... -coverprofile=coverage.out $(PACKAGES)
	$(GO) tool cover -html=coverage.out -o coverage.html
	$(GO) tool cover -func=coverage.out | tail -1

bench: ## Run the micro-benchmarks; PACKAGES=./store runs some
	$(GO) test -run='^$$' -bench=. -benchmem $(PACKAGES)

# What a change of the code is compared by: single-threaded, several times, so that benchstat can tell noise from change. The baseline is
# of this machine, so that it is not in the repository.
MICRO = $(GO) test -run='^$$' -bench='$(or $(BENCH),$(MICROBENCHES))' -benchmem -cpu=1 -count=$(or $(COUNT),6) -benchtime=$(or $(TIME),200ms) \
	$(or $(MICROPACKAGES),. ./actors ./http ./store)
MICROBENCHES = ^Benchmark(Ledger_(Mix|Kinds)|BoxOffice_|RemoteCodec|AppendArgs|Verify|Handler_)

bench-baseline: ## Measure the parts of a booking and keep it as .bench/baseline.txt; BENCH=regexp, COUNT=6, TIME=200ms
	mkdir -p .bench
	$(MICRO) >.bench/now.txt || { cat .bench/now.txt; exit 1; }
	mv .bench/now.txt .bench/baseline.txt
	cat .bench/baseline.txt

bench-compare: ## Measure again and compare with the baseline by benchstat
	@test -f .bench/baseline.txt || { echo "make bench-baseline first, of the code to compare with" >&2; exit 1; }
	$(MICRO) >.bench/now.txt || { cat .bench/now.txt; exit 1; }
	$(GO) run $(BENCHSTAT) .bench/baseline.txt .bench/now.txt

ci: ## Do what continuous integration does
	.ci/run

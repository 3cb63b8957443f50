# Evently's chores. `make help` lists them.

GO       ?= go
PACKAGES ?= ./...
GOLANGCI  = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT   = mvdan.cc/gofumpt@v0.12.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

.DEFAULT_GOAL := help
.PHONY: help build run test race lint fmt generate deploy ladder cover bench ci

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 12

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
	cd deploy/check && $(GO) vet ./... && $(GO) test ./...

ladder: ## Cut, kill, pause and heal five nodes at random, RUNGS=100 times from SEED on, about 11 seconds each
	$(GO) test ./cmd/evently/faults -run TestPartition_FiveNodes -count=1 -v -timeout 3h -long \
		-rungs=$(or $(RUNGS),100) -seed=$(or $(SEED),$(shell date +%s))

cover: ## Measure test coverage: coverage.html and a line for each package
	$(GO) test -coverpkg=./... -coverprofile=coverage.out $(PACKAGES)
	$(GO) tool cover -html=coverage.out -o coverage.html
	$(GO) tool cover -func=coverage.out | tail -1

bench: ## Run the micro-benchmarks; PACKAGES=./store runs some
	$(GO) test -run='^$$' -bench=. -benchmem $(PACKAGES)

ci: ## Do what continuous integration does
	.ci/run

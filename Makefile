# Every recipe's tools: the pinned Foundry in node_modules first, then whatever the machine has, also what a user of
# Debian's does not find by name (iptables, losetup).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(CURDIR)/node_modules/.bin:$(PATH):/usr/sbin:/sbin
export FOUNDRY_DISABLE_NIGHTLY_WARNING := 1

host := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# Of the end-to-end tests two run at a time, because each has a chain, containers and providers of its own; nextest, which
# is used where it is installed, reads the same from .config/nextest.toml. Doc tests are cargo's own in any case.
ifneq ($(shell command -v cargo-nextest),)
cargo_test := cargo nextest run --workspace && cargo test --workspace --doc
else
cargo_test := cargo test --workspace --exclude tests && cargo test -p tests -- --test-threads=2
endif

# A provider mounts volumes and fences its pods in, which only root may, so the market, the tests that run providers, and
# their benchmark run as root: through sudo, where somebody else types this.
ifneq ($(shell id -u),0)
as_root := sudo --preserve-env env PATH=$(PATH)
runner := CARGO_TARGET_$(shell tr a-z- A-Z_ <<< '$(host)')_RUNNER
test-crates bench-order bench-load: export $(runner) := $(as_root)
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo build guestbook test test-contracts test-crates test-scripts bench bench-order bench-ingress bench-images \
        bench-indexer bench-market bench-load gas coverage prove audit fuzz-contracts mutants lint fmt abi sqlx deny clean

help: ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

setup: ## Bring what is missing: Docker, Postgres, Foundry, solc, OpenZeppelin; build the contracts
	@scripts/setup

demo: setup guestbook ## The whole market on this machine, with the guestbook deployed on it
	cargo build -p roadstead
	$(as_root) target/debug/roadstead dev --demo

build: setup ## The `roadstead` program, optimised: target/release/roadstead
	cargo build -p roadstead --release

# The binary is static, so the image is made of nothing else and needs no registry. Its session key stays on this machine.
guestbook: context := target/guestbook
guestbook: env := examples/guestbook/.env
guestbook: ## The demo app: a static binary, its image in Docker, its secret in .env
	RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' cargo build -p guestbook --release --target $(host)
	mkdir -p $(context)/data
	cp target/$(host)/release/guestbook $(context)/
	$(as_root) docker build -q -t roadstead/guestbook -f examples/guestbook/Dockerfile $(context)
	@test -e $(env) || (umask 077; printf 'GUESTBOOK_SESSION_KEY=%s\n' "$$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" > $(env))

test: setup test-contracts test-crates test-scripts ## All tests

# FORGE_FLAGS is how scripts/test points this at a project that must fail.
test-contracts: ## forge test, which also holds the gas to snapshots/
	forge test $(FORGE_FLAGS)

# The end-to-end tests run the program itself, which lies where cargo puts it.
test-crates: guestbook ## Crates and end to end
	cargo build --workspace --bins
	$(cargo_test)

test-scripts: ## The scripts
	scripts/test

bench: bench-order bench-ingress bench-images bench-load ## What publishers and providers wait for and pay with; figures, no judgement

# What takes time is Docker's and the chain's, so the dev profile does; `make bench-order BENCH=--release` takes the other.
bench-order: setup guestbook ## From an order to an answer, and operating a pod, beside Docker's own client
	cargo build -p roadstead $(BENCH)
	cargo run -q -p tests --bin bench $(BENCH)

bench-ingress: ## What a request costs beside nginx (nginx-light)
	cargo bench -q -p edge --bench beside_nginx

bench-images: setup ## Encrypting and decrypting an image, beside skopeo
	cargo bench -q -p seal --bench beside_skopeo

# Ponder is for this alone, so it is brought here; PONDER= leaves it out. EVENTS= says how many there are.
bench-indexer: setup ## The indexer beside what the node and Postgres can do, and beside Ponder
	$(if $(filter-out no,$(or $(PONDER),yes)),cd bench/ponder && npm ci --no-audit --no-fund)
	cargo run -q -p indexer --release --example bench_indexer

bench-market: setup ## The market with 100,000 providers and 1,000,000 leases behind it, and what its page weighs
	cargo run -q -p market --release --example bench_market

# PODS= says how many there are. What a provider costs is measured as it is run: optimised.
bench-load: setup ## What a provider with 200 pods costs, and how long it takes to adopt them
	cargo build -p roadstead --release
	cargo run -q -p tests --bin load --release

gas: ## Write snapshots/, the gas that `make test` holds the contracts to, and docs/gas.md
	FORGE_SNAPSHOT_CHECK=false FORGE_SNAPSHOT_EMIT=true forge test --match-path 'contracts/test/gas/*'
	node snapshots/table.mjs

# Without the invariants, which would take long with what coverage adds to each step and cover nothing that is new.
coverage: ## Line and branch coverage of the contracts
	forge coverage --report summary --no-match-coverage '(test|script|node_modules)/' --match-path 'contracts/test/{unit,vectors}/**'

prove: setup ## What holds for every number there is (Halmos, in .roadstead/venv)
	@scripts/prove

audit: setup ## Slither (in .roadstead/venv) and forge lint over the contracts
	@scripts/audit

fuzz-contracts: setup ## The invariants with other seeds, for MINUTES=60
	@scripts/fuzz-contracts

mutants: setup ## Whether the unit tests notice the changes in scripts/mutants.txt
	@scripts/mutants

lint: ## Formatting, lints, and whether the committed ABI is the contracts'
	forge fmt --check
	forge lint
	scripts/abi --check
	scripts/sqlx --check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

fmt: ## Format Solidity and Rust
	forge fmt
	cargo fmt --all

abi: ## Write crates/chain/abi from the contracts
	scripts/abi

sqlx: ## Write .sqlx, what the queries are checked against, from migrations/
	scripts/sqlx

deny: ## Licences, sources and duplicates of the dependencies (cargo install cargo-deny)
	cargo deny check licenses bans sources

clean: ## Remove what was built; .roadstead, the data, stays
	cargo clean
	rm -rf out cache

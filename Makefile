# What people type. Everything here is also plain cargo and sh: no target does anything that cannot be read in one line.

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint doc fmt ci needs clean-private-postgres

CARGO ?= cargo

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

needs: ## Find or install what build and tests need: a C compiler, Postgres 15 to 18
	@scripts/needs.sh

# The dev profile, so that `make demo` and `make test` share one build: a release build takes many minutes on two cores, and
# the heavy lifting of the demo happens in Postgres.
demo: needs ## The whole story on this machine: three services, a saga that completes, one that is undone
	$(CARGO) run --locked --bin hms-orch -- demo $(ARGS)

test: needs ## All tests, on a private Postgres that they start themselves
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    set -x; $(CARGO) nextest run --workspace --locked --no-fail-fast && $(CARGO) test --doc --workspace --locked; \
	else \
	    set -x; $(CARGO) test --workspace --locked --no-fail-fast; \
	fi

test-fast: ## The tests that need no database
	$(CARGO) test --lib --locked

lint: ## Formatting and lints, as the CI asks for them
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: ## The documentation of the code; links that lead nowhere are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

fmt: ## Format the code
	$(CARGO) fmt

ci: ## Everything that the CI runs, in its order
	.ci/run

clean-private-postgres: ## Stop and remove the private Postgres with all its data (YES=1 does it)
	@scripts/clean-private-postgres.sh $(if $(filter 1,$(YES)),--yes)

# gfwtools: `make run` tries it, `make test` tests it, `make help` lists the rest.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := ./demo
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

# The tests start gfwtools thousands of times. Without cached byte code (as in many containers), each start compiles
# everything that it imports.
unexport PYTHONDONTWRITEBYTECODE
CORES ?= $(shell nproc)
# Many tests wait for a daemon, a handshake or a timeout: two workers for each core. worksteal shares out the last
# tests again, because the long ones stand side by side.
WORKERS ?= $(shell expr $(CORES) \* 2)

# A host has services of its own that run beside each other.
PAGE ?= docs/tested-hosts.md
HOST_WORKERS ?= $(shell nproc)

MAIN_E2E := $(patsubst %,tests/e2e/test_%.py,bootstrap reload trace lab)

.DEFAULT_GOAL := help
.PHONY: help run test golden keys check fix bench bench-dns bench-host bench-revisions fuzz audit test-oldest lock install uninstall packages clean test-debian-lab test-quick test-variants test-hosts docs-commands

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(STAMP) ## Try the main job below ./demo. It touches nothing else on this host.
	$(BIN)/gfwtools --root $(DEMO) update
	@dnsmasq="$$(PATH="$$PATH:/usr/sbin:/sbin" command -v dnsmasq)"; \
	if [ -n "$$dnsmasq" ]; then set -x; "$$dnsmasq" --test --conf-file=$(DEMO)/etc/dnsmasq.d/gfwlist.conf; \
	else echo "dnsmasq is not installed, so the file was not tested with it"; fi
	$(BIN)/gfwtools --root $(DEMO) check domain google.com example.com
	@echo
	@echo "The files lie in:"
	@find $(DEMO) -type f ! -name lock | sort | sed 's/^/  /'

test: packages check ## Run the tests (as root they include the network namespaces).
	$(BIN)/python -m pytest -m "not variant" -n $(WORKERS) --dist worksteal

test-variants: packages $(DEV) ## Run the variants that test leaves out, such as two of four pairs of backend and layout (as root).
	$(BIN)/python -m pytest tests/e2e -m variant -n $(WORKERS) --dist worksteal

# The unit tests do not wait, and each worker imports all of them: one for each core.
test-quick: packages $(DEV) ## Run only the unit tests: no network namespaces, mounts or daemons, no step by step.
	$(BIN)/python -m pytest tests --ignore=tests/e2e -m "not e2e and not each_step" -n $(CORES) --dist worksteal

test-hosts: $(DEV) ## Boot real Debian hosts and write docs/tested-hosts.md (as root); HOSTS="..." chooses some.
	@scripts/test-packages debootstrap:debootstrap || true
	GFWTOOLS_HOSTS="$(HOSTS)" GFWTOOLS_HOSTS_PAGE="$(PAGE)" $(BIN)/python -m pytest tests/hosts -rs -n $(HOST_WORKERS) --dist loadscope

golden: packages $(DEV) ## Rewrite tests/golden after an intended change of the output (as root).
	GOLDEN=write $(BIN)/python -m pytest -q -n $(WORKERS) tests/test_golden.py tests/e2e/test_golden_scripts.py
	@git --no-pager diff --stat -- tests/golden

keys: $(DEV) ## Rewrite the rows of docs/configuration.md from gfwtools/config/keys.py.
	$(BIN)/python tests/configuration_page.py

docs-commands: $(STAMP) ## Write docs/commands.md: every command with its help and its exit codes.
	$(BIN)/python scripts/commands docs/commands.md

test-debian-lab: packages $(DEV) ## Run the main e2e tests with the files of Debian's dnsmasq package (as root).
	GFWTOOLS_LAB=debian-dnsmasq $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(MAIN_E2E)

check: $(DEV) ## Run ruff, mypy --strict and the check of the imports between packages.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(DEV) ## Let ruff fix and format what it can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-dns: packages $(DEV) ## Measure lost queries and queries per second, by layout (as root).
	$(BIN)/python bench/bench_dns.py

bench-host: packages $(DEV) ## Measure check domain --live and warm on a host that is set up (as root).
	$(BIN)/python bench/bench_host.py

bench: $(DEV) ## Measure time, memory and queries per second, also of installed peers (bench/README.md).
	$(BIN)/python bench/bench.py

bench-revisions: $(DEV) ## Compile and test every list below DIR: make bench-revisions DIR=...
	$(BIN)/python bench/revisions.py $(DIR)

fuzz: $(DEV) ## Search for inputs that break fuzz/claims.py, FUZZ_SECONDS (60) per target.
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python fuzz/run.py

audit: ## Look up known vulnerabilities of the packages of install (pip-audit; needs pypi.org).
	@PYTHON="$(PYTHON)" scripts/venv $(VENV)-audit
	@$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3'
	@scripts/audit $(VENV)-audit/bin/pip-audit

test-oldest: ## Run the unit tests with the lower bounds of pyproject.toml installed.
	@PYTHON="$(PYTHON)" scripts/venv $(VENV)-oldest
	@scripts/oldest >$(VENV)-oldest/constraints.txt
	$(VENV)-oldest/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-oldest/constraints.txt -e '.[dev]'
	$(VENV)-oldest/bin/python -m pytest tests --ignore=tests/e2e -n auto

lock: ## Pin the packages of install, with hashes, in the two requirements files.
	@PYTHON="$(PYTHON)" scripts/venv $(VENV)-lock
	@$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5,<1'
	scripts/lock $(VENV)-lock/bin/uv

packages: ## Install the Debian packages that the tests need (as root; other users see which are missing).
	@scripts/test-packages

install: ## Install for the system: its own environment in /opt/gfwtools, the commands in /usr/local/bin.
	@PYTHON="$(PYTHON)" scripts/venv /opt/gfwtools
	scripts/install /opt/gfwtools
	install -d /usr/local/bin
	ln -sf /opt/gfwtools/bin/gfwtools /opt/gfwtools/bin/gfwlist2dnsmasq /usr/local/bin/
	@echo "installed; next: gfwtools --help"

uninstall: ## Undo install (run `gfwtools teardown` first to undo bootstrap).
	rm -rf /opt/gfwtools
	rm -f /usr/local/bin/gfwtools /usr/local/bin/gfwlist2dnsmasq

clean: ## Remove what the targets above made in this folder.
	rm -rf $(VENV) $(VENV)-audit $(VENV)-oldest $(VENV)-lock $(DEMO) .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find gfwtools tests bench fuzz -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@PYTHON="$(PYTHON)" scripts/venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEV): pyproject.toml
	@PYTHON="$(PYTHON)" scripts/venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(STAMP)

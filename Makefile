# The commands of README, CONTRIBUTING and .ci/run. Extra arguments: make test ARGS="-k upload".
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

RUN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: serve test faults check perf perf-memory perf-report audit lock wheel clean

serve: $(READY)
	@exec $(RUN)/python -m trioreg serve $(ARGS)

test: $(READY)
	$(RUN)/python -m pytest $(ARGS)

faults: $(READY)
	@PYTHONPATH=tests exec $(RUN)/python -m faults $(ARGS)

check: $(READY)
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy $(ARGS)

perf: $(READY)
	@exec $(RUN)/python -m perf speed $(ARGS)

perf-memory: $(READY)
	@exec $(RUN)/python -m perf memory $(ARGS)

# The laptop scenario, and the same pushes by 10, 40 and 100 clients; then a page of all. A limit that a run
# passed makes the call fail, after the page is written.
perf-report: $(READY)
	@out=build/perf/$$(date +%Y%m%d-%H%M%S); passed=0; sets=; run="$(RUN)/python -m perf run"; \
	$$run laptop --out $$out/laptop $(ARGS) || passed=$$?; \
	for clients in 10 40 100; do \
		$$run concurrency --set group.uploads.clients=$$clients --out $$out/clients-$$clients $(ARGS) || passed=$$?; \
		sets="$$sets $$out/clients-$$clients"; \
	done; \
	$(RUN)/python -m perf formula $$sets || passed=$$?; \
	$(RUN)/python -m perf report $$out/laptop $$sets --out $$out/report && exit $$passed

# A source package and a manylinux wheel in dist/, each tried where nothing of this tree is.
wheel:
	@PYTHON="$(PYTHON)" .ci/wheel

# What the lock says, and this tree itself, editable. The stamp makes the next call instant.
$(READY): requirements-dev.lock pyproject.toml $(wildcard setup.py trioreg/pipeline/native/* trioreg/storage/filesystem/native/*)
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON): install Python 3.11 or newer, or say make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed, say make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(RUN)/pip || $(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) -m venv failed (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# Known vulnerabilities of what the lock names; exit code 3 when nobody could be asked.
audit: $(READY)
	@test -x $(VENV)/audit/bin/pip-audit || $(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(RUN)/python .ci/audit.py $(VENV)/audit/bin/pip-audit requirements-dev.lock

# Takes the newest versions that pyproject.toml allows, for every Python it allows.
lock: $(READY)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check uv
	$(RUN)/uv pip compile --quiet --upgrade --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command "make lock" pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist *.egg-info trioreg/pipeline/*.so trioreg/storage/filesystem/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find trioreg tests perf -name __pycache__ -type d -prune -exec rm -rf {} +

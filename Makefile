# Two commands: `make demo` shows the program at work on a simulated cluster, `make test` runs
# every check and every test. Both install what they need into .venv and nowhere else; the control
# plane for the tests is built once and cached outside the tree.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One for each processor, and one more, for many tests wait for something else.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The interpreter is checked first: a message now is better than a traceback later.
$(VENV)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "error: Python 3.10 or newer is needed: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "error: the venv module is missing: on Debian, apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: demo
demo: $(VENV)/installed ## Release a stuck VM on a simulated cluster
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tools.demo

.PHONY: playground
playground: $(VENV)/installed ## Keep the simulated cluster of the demo running until Ctrl-C
	@exec env PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tools.playground

.PHONY: lint
lint: $(VENV)/installed ## Formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 kubectl_harvester_stuck krew
	$(BIN)/lint-imports --no-logo

# Tests that need programs which are built first.
NEED_PROGRAMS := test_admission.py test_admission_release.py test_chart.py test_controlplane.py \
  test_deploy.py test_krew.py test_rules.py test_shells.py test_kubeconfig.py test_like_kubectl.py \
  test_virtcontroller.py test_histories_beside.py test_conformance.py test_stories_beside.py \
  test_runbook.py test_image.py test_windows.py \
  behaviour/test_completion.py behaviour/test_through_kubectl.py

UNIT := -n $(WORKERS) -k "not real" $(addprefix --ignore=tests/,$(NEED_PROGRAMS))

.PHONY: unit
unit: $(VENV)/installed ## The tests that need no control plane
	$(BIN)/python -m pytest -q $(UNIT)

# setup.cfg has the matrix; a Python that is missing is said to be skipped, and TOXENV chooses. pyenv
# shows only one of its Pythons, unless it is told to show all.
.PHONY: compat
compat: $(VENV)/tox ## The same, with each Python and the lowest and newest packages
	PYENV_VERSION="$${PYENV_VERSION:-$$(pyenv versions --bare 2>/dev/null | paste -s -d :)}" \
	  $(BIN)/tox run -- $(UNIT)

# Where it meets the packages: click, the client and urllib3, PyYAML, tabulate.
SEAMS := test_cli.py test_connection.py test_pool.py test_proxy.py test_tls.py test_transport.py \
  test_typed_client.py test_offline.py behaviour/test_list.py

.PHONY: lowest
lowest: $(VENV)/tox ## A few of them, with this Python and the lowest packages
	$(BIN)/tox run -e lowest -- -n $(WORKERS) -k "not real" $(addprefix tests/,$(SEAMS))

$(VENV)/tox: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[compat]'
	@touch $@

# The API server of the oldest release. Its own target, for it takes minutes to build.
.PHONY: oldest
oldest: $(VENV)/installed ## The behaviour tests on the oldest supported Kubernetes
	assets=$$($(BIN)/python -m tests.components.controlplane.build oldest) && \
	  KUBEBUILDER_ASSETS=$$assets \
	  $(BIN)/python -m pytest -q -n $(WORKERS) -k "not simulated" \
	  tests/behaviour tests/test_scenarios.py tests/test_controlplane.py tests/test_virtcontroller.py

# The API server of the first release with admission policies. Its own target for the same reason.
.PHONY: policies
policies: $(VENV)/installed ## The admission policies on the oldest Kubernetes that serves them
	assets=$$($(BIN)/python -m tests.components.controlplane.build policies) && \
	  KUBEBUILDER_ASSETS=$$assets $(BIN)/python -m pytest -q -n $(WORKERS) -k "not simulated" \
	  tests/test_admission.py tests/test_admission_release.py

.PHONY: test
test: lint ## Every check and every test, the real kube-apiserver included
	$(BIN)/python -m tests.components.controlplane.build
	$(BIN)/python -m tests.components.krew.build
	$(BIN)/python -m tests.components.promtool.build
	$(BIN)/python -m tests.components.helm.build
	$(BIN)/python -m tests.components.virtcontroller.build
	$(BIN)/python -m tests.components.controllermanager.build
	$(BIN)/python -m tests.components.harvester.build
	$(BIN)/python -m tests.components.shells.build
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
	  $(addprefix --ignore=tests/test_,stories_beside.py image.py windows.py)
	$(MAKE) lowest
	$(MAKE) -j 2 stories frozen

# On the simulated API server alone: tests/test_krew.py has the installed program at the real one.
FROZEN := build/frozen
.PHONY: frozen
frozen: $(VENV)/installed ## The tests of what it does, on the program as Krew installs it
	rm -rf $(FROZEN)
	$(BIN)/python krew/build.py --output $(FROZEN)
	tar -xzf $(FROZEN)/kubectl-harvester-stuck_*.tar.gz -C $(FROZEN)
	$(BIN)/python -m pytest -q -n $(WORKERS) -k "not real" \
	  --program $(FROZEN)/kubectl-harvester_stuck/kubectl-harvester_stuck \
	  tests/behaviour tests/test_scenarios.py

# Its own target, for it needs Wine and Maven. Of the behaviour tests those that were seen to pass
# there: others need more of the system than Wine has, or were not tried yet.
ON_WINDOWS := tests/behaviour/test_version.py tests/behaviour/test_list.py
.PHONY: windows
windows: $(VENV)/installed ## A release and behaviour tests on Windows as Wine has it
	set -e; program=$$($(BIN)/python -m tests.components.windows.build); \
	  $(BIN)/python -m pytest -q -n $(WORKERS) tests/test_windows.py; \
	  $(BIN)/python -m pytest -q -n $(WORKERS) -k "not real" --program $$program $(ON_WINDOWS)

# A few of them are part of `make test`.
.PHONY: histories
histories: $(VENV)/installed ## Random histories beside KubeVirt's own virt-controller (BESIDE=20)
	$(BIN)/python -m tests.components.controlplane.build
	$(BIN)/python -m tests.components.virtcontroller.build
	BESIDE=$${BESIDE:-20} $(BIN)/python -m pytest -q -n 2 tests/test_histories_beside.py

.PHONY: virt-controller
virt-controller: $(VENV)/installed ## A release beside KubeVirt's own virt-controller
	$(BIN)/python -m pytest -q tests/test_virtcontroller.py

.PHONY: conformance
conformance: $(VENV)/installed ## What is said of finalizers beside what their owners do
	$(BIN)/python -m pytest -q tests/test_conformance.py

# On one worker: each would cut the power of a cluster of its own.
.PHONY: stories
stories: $(VENV)/installed ## Power cuts in a cluster of which only the machines are played
	$(BIN)/python -m pytest -q tests/test_stories_beside.py

# Harvester's releases before the newest. Their own target, for each takes minutes to build.
.PHONY: harvester-versions
harvester-versions: $(VENV)/installed ## The same beside earlier releases of Harvester
	set -e; for version in $(basename $(notdir $(wildcard tests/components/harvester/versions/*.mod))); do \
	  $(BIN)/python -m tests.components.harvester.build $$version; \
	  HARVESTER_VERSION=$$version $(BIN)/python -m pytest -q tests/test_conformance.py -k harvester; \
	done

# Too long for every change: a workflow does it every week.
.PHONY: mutants
mutants: $(VENV)/installed ## Break every decision in small ways: does a test fail for each?
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutation]'
	$(BIN)/python -m tools.mutants

# pip-audit needs the network. Without it: a checkout of the Python Packaging Advisory Database.
.PHONY: audit
audit: $(VENV)/installed ## Advisories about the archives' packages (ADVISORIES=DIR without network)
	@test -n "$(ADVISORIES)" \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[audit]'
	PATH="$(abspath $(BIN)):$$PATH" ADVISORIES="$(ADVISORIES)" bash .ci/audit

.PHONY: archive
archive: $(VENV)/installed ## The Krew archive of this platform, and plugin.yaml for it
	$(BIN)/python krew/build.py
	$(BIN)/python krew/render.py

# Needs root and what CONTRIBUTING.md names, and skips nothing: a target of its own.
.PHONY: image
image: $(VENV)/installed ## The container image of the archive, and the tests of it
	rm -rf build/archive
	$(BIN)/python krew/build.py --output build/archive
	$(BIN)/python krew/image.py --dist build/archive
	$(BIN)/python -m pytest -q tests/test_image.py

.PHONY: format
format: $(VENV)/installed ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove what was made in the tree
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# make up     the whole console on this machine
# make test   every test
# make check  the gate without tests: style, types, imports, migrations, deployment checks
# make bench  the benchmarks
# make test-docker  the tests that run containers, with a Docker engine of their own (root; Debian's docker.io)
# make test-kubernetes  the tests of clusters and of the manifests, against an API server of their own
# make test-cluster  the contract of runtimes on a real cluster: KUBECONFIG, TIR_TEST_NAMESPACE, TIR_TEST_IMAGE
# make compiled  the gateway's hot path as C, which is faster; needs a C compiler
# make test-torch  the tests that need PyTorch, in an environment of their own (some gigabytes)
# make test-tensorflow  those that need TensorFlow, in one of theirs (two gigabytes)
#
# More arguments go through ARGS: make test ARGS="tests/up -x"

BIN := .venv/bin
PACKAGES := tir_console accounts endpoints gateway monitoring billing serving tests
BENCHMARKS := $(sort $(filter-out benchmarks/__init__.py,$(wildcard benchmarks/*.py)))

# Else each of hundreds of processes compiles all that it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: up stop-all test test-docker test-kubernetes test-cluster test-torch test-tensorflow check bench compiled
.DEFAULT_GOAL := up

up: .venv/installed
	@$(BIN)/python manage.py up $(ARGS)

stop-all: .venv/installed
	@$(BIN)/python manage.py up --stop-all $(ARGS)

test: .venv/installed
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),.ci/test)

test-docker: .venv/installed
	$(BIN)/python -m pytest tests/docker $(ARGS)

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/djade --check --target-version 5.2 $$(git ls-files '*.html')
	$(BIN)/mypy manage.py $(PACKAGES) $(BENCHMARKS) .ci/lock.py
	$(BIN)/lint-imports
	$(BIN)/python .ci/lock.py
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py makemigrations --check --dry-run
	CONSOLE_URL=https://console.example SECRET_KEY=$$(head -c 48 /dev/urandom | base64 -w0) \
		$(BIN)/python manage.py check --deploy --fail-level WARNING

bench: .venv/installed
	@set -e; for file in $(BENCHMARKS); do echo "== $$file"; \
		$(BIN)/python -m $$(echo "$${file%.py}" | tr / .) $(ARGS); done

test-kubernetes: .venv/installed
	$(BIN)/python -m pytest tests/endpoints/runtimes/kubernetes tests/deploy $(ARGS)

test-cluster: .venv/installed
	$(BIN)/python -m pytest tests/real_cluster $(ARGS)

test-torch: .venv-torch/installed
	TORCH_PYTHON=$(CURDIR)/.venv-torch/bin/python $(BIN)/python -m pytest tests/serving/test_torch.py $(ARGS)

test-tensorflow: .venv-tensorflow/installed
	TENSORFLOW_PYTHON=$(CURDIR)/.venv-tensorflow/bin/python $(BIN)/python -m pytest \
		tests/serving/test_tensorflow.py $(ARGS)

compiled: .venv/installed
	@$(BIN)/python -m gateway.compiling

.venv/installed: requirements.lock .ci/venv
	@PYTHON="$(PYTHON)" .ci/venv

.venv-torch/installed: serving/requirements/pytorch-2.x.txt
.venv-tensorflow/installed: serving/requirements/tensorflow-2.x.txt
.venv-torch/installed .venv-tensorflow/installed: .venv/installed serving/requirements/server.txt
	$(BIN)/python -m venv --clear $(@D)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(@D)/bin/python $(addprefix -r ,$(filter serving/%,$^))
	@touch $@

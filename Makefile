# pyrun: `make run` and `make test` do everything from a bare Debian 12/13 or Ubuntu 24.04 machine, or a newer one;
# `make help` lists the rest.
# Every target can be repeated; what is there already is neither fetched nor built again.

BUILD  ?= build
PREFIX ?= /usr/local
PYTHON ?= /usr/bin/python3
VENV   := $(BUILD)/venv
BIN    := $(VENV)/bin
ROOT   := $(if $(filter 0,$(shell id -u)),,sudo env "PATH=$(PATH)")
ARGS   ?=
SECONDS ?= 60

# Debian packages: to build and run, to test, to compare with
PACKAGES       := gcc libc6-dev make python3-dev python3-venv musl-tools libcap-dev libseccomp2 busybox-static \
                  mmdebstrap debian-archive-keyring iproute2 iputils-ping ca-certificates
PACKAGES_TEST  := clang-format containernetworking-plugins cppcheck curl docker-registry fuse-overlayfs iptables locales nftables \
                  passt procps shellcheck skopeo slirp4netns uidmap umoci
# not for a machine somebody uses: tests of coexistence skip without them
PACKAGES_FIREWALLS = ufw firewalld dbus libvirt-daemon libvirt-clients dnsmasq-base \
                  $(if $(shell apt-cache show libvirt-daemon-driver-network 2>/dev/null),libvirt-daemon-driver-network)
# the guest of the VM floor: an emulator, what makes disks, what `vagrant validate` needs
PACKAGES_VM    := qemu-system-x86 qemu-utils erofs-utils e2fsprogs cpio mmdebstrap debian-archive-keyring util-linux \
                  python3 busybox-static vagrant
PACKAGES_AARCH64 := gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
# docker-cli is a package of its own since Debian 13; asked when needed, since a fresh machine has no lists at first
PACKAGES_BENCH  = runc crun podman docker.io hyperfine $(if $(shell apt-cache show docker-cli 2>/dev/null),docker-cli) \
                  $(if $(shell apt-cache show netavark 2>/dev/null),netavark aardvark-dns)

SOURCES := pyproject.toml $(shell find runtime csrc images -type f -not -path '*/.*' -not -path '*/__pycache__/*')

.DEFAULT_GOAL := help
.PHONY: help setup packages packages-bench packages-oci packages-aarch64 packages-firewalls packages-vm test-vm bench-vm build images run test test-aarch64 conformance fuzz bench hot docs install uninstall lint clean distclean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: packages build images  ## install what is missing (apt, pip), build, make the default images

# asked before anything is fetched; where there is none yet, the packages bring one
packages:
	@! command -v $(PYTHON) >/dev/null || $(PYTHON) -c 'import sys; sys.exit("pyrun: $(PYTHON) is Python %d.%d, and 3.11 is \
	needed: Debian 12, Ubuntu 24.04, or PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@tests/lab/install-packages $(PACKAGES) $(PACKAGES_TEST)

packages-oci: packages
	@tests/lab/install-packages runc crun

packages-aarch64: packages
	@tests/lab/install-packages $(PACKAGES_AARCH64)

packages-bench: packages
	@tests/lab/install-packages $(PACKAGES_BENCH)

packages-firewalls: packages
	@tests/lab/install-packages $(PACKAGES_FIREWALLS)

packages-vm:
	@tests/lab/install-packages $(PACKAGES_VM)

# The private environment: pip looks nothing up for requirements that are already satisfied.
PIP := $(BIN)/python -m pip --disable-pip-version-check -q install

$(VENV)/.dependencies: pyproject.toml | packages
	@echo "environment: $(VENV)"
	@mkdir -p $(BUILD)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import tomllib; t = tomllib.load(open("pyproject.toml", "rb")); \
	    print(*t["project"]["dependencies"], *t["dependency-groups"]["dev"], sep="\n")' >$(VENV)/requirements.txt
	@$(PIP) --use-pep517 -r $(VENV)/requirements.txt
	@touch $@

# the interpreter of its own is made from this one (csrc/interpreter_build.py)
$(VENV)/.installed: $(SOURCES) $(realpath $(PYTHON)) $(VENV)/.dependencies
	@echo "build: pyrun into $(VENV)"
	@$(PIP) --no-index --no-deps --no-build-isolation --force-reinstall .
	@touch $@

build: $(VENV)/.installed  ## compile and install into the private environment (seconds)

# The default images; `pull` of one that is there changes nothing.
images: build
	@for image in busybox debian; do \
	    if $(ROOT) $(BIN)/pyrun images -q $$image 2>/dev/null | grep -q .; then echo "image: $$image is there"; \
	    else echo "image: making $$image"; $(ROOT) $(BIN)/pyrun pull $$image || exit; fi; done

run: setup  ## the main job: a shell in a bridged debian container; without a terminal, a demonstration
	@if [ -t 0 ] && [ -t 1 ]; then $(ROOT) $(BIN)/pyrun run -it --rm --net=bridge debian bash; \
	else $(ROOT) sh tests/lab/demo $(BIN)/pyrun; fi

test: setup  ## every test, on a lab host of its own (ARGS="-k word" to choose)
	@$(ROOT) tests/lab/enter $(BIN)/python -m pytest $(ARGS)

# verdicts of other machines lie beside it: conformance-vm.json and -vm-systemd.json, by `make test-vm`
conformance: setup packages-oci  ## pyrun-oci, runc and crun before the same tests: a table, flag by flag and field by field
	@$(ROOT) tests/lab/enter $(BIN)/python -m pytest -q tests/oci --verdicts $(BUILD)/conformance.json $(ARGS) \
	    >$(BUILD)/conformance.log 2>&1 || grep -E '^(FAILED|ERROR)' $(BUILD)/conformance.log
	@$(BIN)/python tests/oci/table.py $(wildcard $(BUILD)/conformance-*.json) $(BUILD)/conformance.json

test-aarch64: build packages-aarch64  ## the C parts for aarch64: they compile, and their unit tests pass under qemu-user
	@$(BIN)/python -m pytest tests/unit/test_aarch64.py $(ARGS)

fuzz: build  ## look for inputs that break the decoders, SECONDS each
	@$(ROOT) env PYRUN_FUZZ_SECONDS=$(SECONDS) tests/lab/enter $(BIN)/python -m pytest --timeout=0 tests/fuzz -k "not planted" $(ARGS)

test-vm: packages-vm  ## the tests of cgroup v2 and systemd, in a Debian 13 under qemu (minutes)
	@$(ROOT) tests/vm/floor --output $(BUILD)/vm $(ARGS)

bench: setup packages-bench  ## measure beside runc, crun, podman and Docker, on a lab host; a whole run writes docs/performance.md
	@$(ROOT) tests/lab/enter $(BIN)/python tests/bench/bench.py $(ARGS)

hot: setup packages-bench  ## find out which functions a start calls, for the bundle (csrc/hot_functions.txt)
	@$(ROOT) tests/lab/enter $(BIN)/python tests/bench/hot_functions.py $(ARGS)

bench-vm: packages-vm  ## measure beside runc in the guest, with cgroupfs and with systemd
	@$(ROOT) rm -f $(BUILD)/vm/bench.json
	@$(ROOT) env VM_OUTPUT=$(BUILD)/vm tests/vm/bench/measure $(ARGS) || status=$$?; test ! -f $(BUILD)/vm/bench.json || \
	    $(PYTHON) tests/bench/performance.py --guest $(BUILD)/vm/bench.json; exit $${status:-0}

install: build  ## put pyrun and pyrun-oci into $(PREFIX)/bin (they stay tied to this directory)
	$(ROOT) install -d $(DESTDIR)$(PREFIX)/bin
	$(ROOT) ln -sf "$(abspath $(BIN))/pyrun" "$(abspath $(BIN))/pyrun-oci" $(DESTDIR)$(PREFIX)/bin/
	@directory="$(abspath $(BIN))"; while [ -n "$$directory" ]; do \
	    case $$(stat -c %A "$$directory") in *[xt]) ;; *) \
	        echo "install: root alone can use it, $$directory is closed to others; a checkout in /opt or /srv is not" ;; esac; \
	    directory=$${directory%/*}; done

uninstall:  ## take them away again
	$(ROOT) rm -f $(DESTDIR)$(PREFIX)/bin/pyrun $(DESTDIR)$(PREFIX)/bin/pyrun-oci

docs: build  ## write docs/networking.md anew from a run on a lab host, docs/docker-differences.md from the options
	@mkdir -p docs
	@$(BIN)/python tests/docker_differences.py >$(BUILD)/docker-differences.md
	@mv $(BUILD)/docker-differences.md docs/docker-differences.md
	@$(ROOT) tests/lab/enter $(BIN)/python tests/networking_doc.py >$(BUILD)/networking.md
	@mv $(BUILD)/networking.md docs/networking.md

lint: build  ## the linters and the architecture rules alone
	@$(BIN)/python -m pytest -q tests/unit/test_linters.py tests/unit/test_architecture.py

# the tests run as root, and what they left behind is root's
remove = echo "rm -rf $(1)"; rm -rf $(1) 2>/dev/null || $(ROOT) rm -rf $(1)
UNINSTALL := $(BIN)/python -m pip --disable-pip-version-check -q uninstall -y pyrun-container

clean:  ## remove what was built; the environment's libraries stay
	@if [ -x $(BIN)/pyrun ]; then $(UNINSTALL) 2>/dev/null || $(ROOT) $(UNINSTALL); fi
	rm -f $(VENV)/.installed
	@caches=$$(find runtime csrc tests -name __pycache__ -type d -prune); $(call remove,.mypy_cache .pytest_cache .ruff_cache $$caches)

distclean: clean  ## remove everything the make targets made here (not the images in /var/lib/pyrun)
	@$(call remove,$(BUILD))

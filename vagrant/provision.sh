#!/bin/sh
# Makes a Debian 12 or 13 or Ubuntu 24.04 machine ready to build and test pyrun. Run as root; can be repeated.
# The same file serves `vagrant up` (a booted machine) and the image of the test VM (tests/vm/image: a chroot without
# systemd): so it starts no service, asks nothing of a running systemd, and needs apt alone.
set -eu
export DEBIAN_FRONTEND=noninteractive
[ -n "${PROVISION_USER:-}" ] || PROVISION_USER=$(getent passwd vagrant >/dev/null && echo vagrant || echo user)

install() { apt-get install -y -q --no-install-recommends "$@"; }

apt-get update -q
# docker-cli is a package of its own since Debian 13
if apt-cache show docker-cli >/dev/null 2>&1; then docker_cli=docker-cli; else docker_cli=; fi
# a system with systemd, and what one looks at it with; what builds pyrun; the peers, and what rootless containers need
# shellcheck disable=SC2086 # no word, or one
install systemd systemd-sysv libpam-systemd dbus dbus-user-session udev kmod util-linux mount procps psmisc sudo \
    ca-certificates curl iproute2 iputils-ping iptables nftables jq strace less \
    gcc libc6-dev make python3 python3-dev python3-venv musl-tools libcap-dev libseccomp2 busybox-static \
    runc crun podman containerd docker.io netavark aardvark-dns catatonit fuse-overlayfs uidmap passt slirp4netns \
    hyperfine $docker_cli

# nothing that wakes up by itself while a test measures
for unit in docker.service docker.socket containerd.service apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer podman-auto-update.timer \
    podman-auto-update.service podman-restart.service podman.socket podman-clean-transient.service \
    netavark-dhcp-proxy.socket netavark-dhcp-proxy.service; do
    systemctl disable "$unit" >/dev/null 2>&1 || true
done

# an unprivileged user with sub-ids and a lingering session of systemd (rootless containers)
getent passwd "$PROVISION_USER" >/dev/null || useradd -m -s /bin/bash "$PROVISION_USER"
grep -q "^$PROVISION_USER:" /etc/subuid ||
    usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$PROVISION_USER"
mkdir -p /var/lib/systemd/linger
touch "/var/lib/systemd/linger/$PROVISION_USER"
# systemd delegates only memory and pids to user sessions unless told otherwise
mkdir -p /etc/systemd/system/user@.service.d
printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >/etc/systemd/system/user@.service.d/delegate.conf
printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/pyrun.conf

# where the sources are shared into a booted machine: build them, make the images, put the commands on PATH
if [ -f /src/Makefile ] && [ -d /run/systemd/system ]; then
    make -C /src setup install
fi

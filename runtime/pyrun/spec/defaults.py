"""What Docker gives a container that asks for nothing: mounts, masks, devices, sysctls, the PATH.

These are facts about Docker and runc, kept as plain tuples so that a start only reads them. Sources:

    moby/moby, at b985e2313a86 (2026-08-23)
        daemon/pkg/oci/defaults.go            d5370d34d328 (2026-04-27)  mounts, masks, device rules
        daemon/oci_linux.go                   efe6156e19ae (2026-06-11)  sysctls, what --privileged changes
    opencontainers/runc, at 76d9cf5da568 (2026-08-19)
        libcontainer/specconv/spec_linux.go   a48a7cef962c (2026-02-26)  devices every container gets
        libcontainer/rootfs_linux.go          a5690a084d80 (2026-07-01)  links in /dev

Not here: names and numbers of capabilities (capabilities.py), the seccomp profile (seccomp_default.json).
"""

from __future__ import annotations

import posix

# (destination, type, source, options), in the order they are mounted. `runtime-spec config.md#mounts`.
MOUNTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", "nosuid", "noexec", "nodev")),
    ("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    # Docker appends `size=` with --shm-size, SHM_SIZE_BYTES when not given.
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777")),
)
SHM_SIZE_BYTES = 64 * 1024 * 1024
# --privileged takes `ro` from these and nothing else of a mount's options.
MOUNTS_WRITABLE_WHEN_PRIVILEGED = ("/sys", "/sys/fs/cgroup")

# Hidden behind an empty file or directory; both lists are empty for a privileged container.
# interrupts and thermal_throttle tell of other containers' key strokes and load (GHSA-6fw5-f8r9-fgfm),
# powercap of the power they draw (GHSA-jq35-85cj-fj4p).
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

# (path, type, major, minor, mode): the nodes every container gets; /dev/console comes with a terminal.
DEVICES: tuple[tuple[str, str, int, int, int], ...] = (
    ("/dev/null", "c", 1, 3, 0o666),
    ("/dev/random", "c", 1, 8, 0o666),
    ("/dev/full", "c", 1, 7, 0o666),
    ("/dev/tty", "c", 5, 0, 0o666),
    ("/dev/zero", "c", 1, 5, 0o666),
    ("/dev/urandom", "c", 1, 9, 0o666),
)

# (allow, type, major, minor, access), -1 = any: what Docker writes to linux.resources.devices, in order.
DEVICE_RULES: tuple[tuple[bool, str, int, int, str], ...] = (
    (False, "a", -1, -1, "rwm"),
    (True, "c", 1, 5, "rwm"),
    (True, "c", 1, 3, "rwm"),
    (True, "c", 1, 9, "rwm"),
    (True, "c", 1, 8, "rwm"),
    (True, "c", 5, 0, "rwm"),
    (True, "c", 5, 1, "rwm"),
    (False, "c", 10, 229, "rwm"),
)
# What Docker appends for --privileged (instead of the rules of --device and --device-cgroup-rule).
DEVICE_RULES_PRIVILEGED: tuple[tuple[bool, str, int, int, str], ...] = ((True, "a", -1, -1, "rwm"),)
# What runc appends to any config's rules: mknod of anything, the nodes above, terminals, tun.
DEVICE_RULES_ALWAYS: tuple[tuple[bool, str, int, int, str], ...] = (
    (True, "c", -1, -1, "m"),
    (True, "b", -1, -1, "m"),
    (True, "c", 1, 3, "rwm"),
    (True, "c", 1, 8, "rwm"),
    (True, "c", 1, 7, "rwm"),
    (True, "c", 5, 0, "rwm"),
    (True, "c", 1, 5, "rwm"),
    (True, "c", 1, 9, "rwm"),
    (True, "c", 136, -1, "rwm"),
    (True, "c", 5, 2, "rwm"),
    (True, "c", 10, 200, "rwm"),
)

# (link, target). /dev/core only where /proc/kcore exists; /dev/ptmx replaces whatever is there.
DEV_LINKS: tuple[tuple[str, str], ...] = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)

# Set in a network namespace of the container's own only, where the file exists; ping_group_range not in a
# user namespace.
SYSCTLS: tuple[tuple[str, str], ...] = (
    ("net.ipv4.ping_group_range", "0 2147483647"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CPU_DIR = "/sys/devices/system/cpu"


def masked_paths(cpu_dir: str = _CPU_DIR) -> tuple[str, ...]:
    """MASKED_PATHS and the thermal_throttle directory of every CPU that has one (bare-metal Intel).

    Where the first CPU has none, nobody has: virtual machines pay one stat(2).
    """
    try:
        posix.stat(f"{cpu_dir}/cpu0/thermal_throttle")
        names = posix.listdir(cpu_dir)
    except OSError:
        return MASKED_PATHS
    numbers = sorted([int(name[3:]) for name in names if name[:3] == "cpu" and name[3:].isdecimal()])
    found = []
    for number in numbers:
        path = f"{cpu_dir}/cpu{number}/thermal_throttle"
        try:
            posix.stat(path)
        except OSError:
            continue  # offline
        found.append(path)
    return MASKED_PATHS + tuple(found)

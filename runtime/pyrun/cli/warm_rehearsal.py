"""What the warm planner plans before anybody asks: a start that is thrown away, some times over.

The interpreter rewrites code that has run a few times into a quicker form, in place. Done before the fork, every child
has it; else each would run the slow form once, and copy the pages it lies on. Nothing but a directory of our own is
touched: prepare decides, launch.start does.
"""

from __future__ import annotations

import posix

from pyrun.engine.oci import prepare
from pyrun.errors import PyrunError
from pyrun.jsonlite import dumps
from pyrun.plan.plan import encode
from pyrun.spec.config import OCI_VERSION
from pyrun.store import paths

from . import oci_options, oci_tables, options, tables, warm_request

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config

_TIMES = 20  # the interpreter begins after eight
_NAMES = ("CAP_KILL", "CAP_CHOWN", "CAP_SETUID")
CONFIG: Config = {
    "ociVersion": OCI_VERSION,
    "process": {
        "args": ["sh", "-c", "true"],
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin", "TERM=xterm"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": {kind: list(_NAMES) for kind in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "rehearsal",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "ro"]},
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 100}},
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
        "maskedPaths": ["/proc/kcore", "/proc/keys"],
        "readonlyPaths": ["/proc/sys"],
    },
}


def rehearse(directory: str) -> None:
    """In a bundle below *directory* that is gone afterwards."""
    bundle = f"{directory}/rehearsal.{posix.getpid()}"
    paths.make(f"{bundle}/rootfs")
    paths.write(f"{bundle}/config.json", dumps(CONFIG).encode())
    try:
        for _ in range(_TIMES):
            warm_request.standing("/proc/self")
            options.parse(tables.VERBS["run"], ["--rm", "-e", "A=b", "busybox", "true"])
            table, _, _, stops = oci_tables.COMMANDS["run"]
            given, _ = oci_options.parse(table, ["--bundle", bundle, "rehearsal"], stops=stops)
            prepared = prepare.prepare({"root": directory, **given}, "rehearsal", waits=False)
            encode(prepared.operations)
    except PyrunError:  # a host where even this cannot be planned
        return
    finally:
        posix.unlink(f"{bundle}/config.json")
        posix.rmdir(f"{bundle}/rootfs")
        posix.rmdir(bundle)

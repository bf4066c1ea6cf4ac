"""Privileges: labels, bounding set, identity, capabilities, no_new_privs, seccomp, in the only order that works.

Labels are written while init is root: it is not dumpable, so its files below /proc/self are root's, and nobody else
may label it. A seccomp filter is loaded either with CAP_SYS_ADMIN, so before capabilities go, or under no_new_privs,
and then as late as possible: execve is all it sees of init. `run` leaves the inheritable set empty (CVE-2022-24769);
a bundle's config decides its own. What cannot be granted is left out with a notice, as the runtime-spec wants it.
Source: man 7 capabilities, man 2 seccomp, runtime-spec config.md#linux-process; runc for labels and ambient
capabilities. Next: stages/process.py.
"""

from __future__ import annotations

import posix

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.plan.operations import Operation
from pyrun.spec import capabilities
from pyrun.spec.values import CAPABILITY_SETS, linux_section
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Process


def plan(config: Config, job: Job) -> list[Operation]:
    """Operations from full root down to what the process may do. job.seccomp: (descriptor, flags) or None."""
    process = config["process"]
    user = process.get("user") or {}
    uid = user.get("uid", 0)
    no_new_privileges = bool(process.get("noNewPrivileges"))
    seccomp = _seccomp(job, int(no_new_privileges))
    bounding, held = _capabilities(config, process)
    groups = user.get("additionalGids") or []
    umask = user.get("umask")
    return [
        *plan_labels(process),
        Operation("STREAMS", uid),
        *([] if no_new_privileges else seccomp),
        Operation("BOUNDING", bounding),
        # without one 022, as in runc and crun, whatever the caller's is (containerd's is 0)
        Operation("IDENTITY", uid, user.get("gid", 0), 0o022 if umask is None else umask, *groups),
        Operation("CAPABILITIES", *held),
        *([Operation("NO_NEW_PRIVILEGES")] if no_new_privileges else []),
        *(seccomp if no_new_privileges else []),
    ]


# ── capabilities ───────────────────────────────────────────────────────────────────────────────────


def _capabilities(config: Config, process: Process) -> tuple[int, tuple[int, int, int, int]]:
    """(bounding, (effective, permitted, inheritable, ambient)); none at all without the section, as in runc."""
    sets = process.get("capabilities") or {}
    unknown: set[str] = set()
    masks = {name: capabilities.mask_of_known(sets.get(name) or [], unknown) for name in CAPABILITY_SETS}
    bounding, permitted = masks["bounding"], masks["permitted"]
    grantable = _grantable(config, bounding | permitted)
    wanted = masks["effective"], permitted, masks["inheritable"], masks["ambient"]
    permitted &= grantable
    inheritable = wanted[2] & bounding & grantable  # the kernel's rule: within the bounding set
    # the kernel raises only what is both permitted and inheritable; not worth a word, since every `runc spec` has it so
    held = wanted[0] & permitted, permitted, inheritable, wanted[3] & permitted & inheritable
    lost = (
        (bounding & ~grantable)
        | (wanted[0] & ~held[0])
        | (wanted[1] & ~permitted)
        | (wanted[2] & ~inheritable)
    )
    if names := sorted({*unknown, *capabilities.names_of(lost)}):
        notice.say(f"ignoring unknown or unavailable capabilities: [{' '.join(names)}]")
    return bounding, held


def _grantable(config: Config, asked: int) -> int:
    """What can be given: all there is in a user namespace, else what pyrun has. The usual fourteen are taken to be had:
    reading what we have costs more than all the rest here."""
    kinds = [item["type"] for item in linux_section(config).get("namespaces") or []]
    if not asked & ~capabilities.DEFAULT or "user" in kinds:
        return capabilities.ALL
    return capabilities.available()


# ── seccomp ────────────────────────────────────────────────────────────────────────────────────────


def _seccomp(job: Job, late: int) -> list[Operation]:
    return [Operation("SECCOMP", *job.seccomp, late)] if job.seccomp else []


# ── labels ─────────────────────────────────────────────────────────────────────────────────────────


def plan_labels(process: Process) -> list[Operation]:
    """What the security modules are to call the program. Raises UsageError, in runc's words, where there is none."""
    label, profile = process.get("selinuxLabel"), process.get("apparmorProfile")
    operations = []
    if label:
        if not _has_selinux():
            raise UsageError("selinux label is specified in config, but selinux is disabled or not supported")
        operations.append(Operation("LABEL", 0, str(label), "exec"))
    if profile:
        if not _has_apparmor():
            raise UsageError("apparmor: config provided but apparmor not supported")
        operations.append(Operation("LABEL", 0, f"exec {profile}", "apparmor/exec", "exec"))
    return operations


def _has_selinux() -> bool:
    """Its file system is mounted, and a policy is loaded: before that every process is "kernel"."""
    try:
        return paths.exists("/sys/fs/selinux/enforce") and paths.read("/proc/self/attr/current").rstrip(
            b"\0\n"
        ) not in (b"", b"kernel")
    except OSError:
        return False


def _has_apparmor() -> bool:
    """Both of runc's signs: the module is on, and its files are there."""
    try:
        posix.stat("/sys/kernel/security/apparmor")
        return paths.read("/sys/module/apparmor/parameters/enabled")[:1] == b"Y"
    except OSError:
        return False

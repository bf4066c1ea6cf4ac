"""One entry per kind of operation that init or the cgroup stage executes: (sentence, shell equivalent, see it).

`{name}` and `{pid}` are filled in by explain.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from .operations import Operation

Explanation = tuple[str, str, str]


def _clone(operation: Operation) -> Explanation:
    kinds = [str(kind) for kind in operation.args]
    if not kinds:
        return "start init in the namespaces that are there", "", "lsns -p {pid}"
    flags = " ".join(f"-{_LETTERS[kind]}" for kind in kinds)
    return (
        f"make new namespaces ({', '.join(kinds)}) and start init in them",
        f"unshare {flags}{' -f' if 'pid' in kinds else ''} ...",
        "lsns -p {pid}",
    )


# Of unshare(1) and nsenter(1), in the order of the kernel's flags.
_LETTERS = {
    "mount": "m", "uts": "u", "ipc": "i", "user": "U", "pid": "p", "network": "n", "cgroup": "C", "time": "T",
}  # fmt: skip


def _enter(operation: Operation) -> Explanation:
    """In `exec` all the container's; in a start one that the config names."""
    from pyrun.stages.namespaces import FLAGS

    kinds = [kind for kind in _LETTERS if int(operation.args[1]) & FLAGS[kind]]
    if len(kinds) == 1:
        return (
            f"join the {kinds[0]} namespace that is to be shared",
            f"nsenter -{_LETTERS[kinds[0]]}... ...",
            "lsns -p {pid}",
        )
    flags = " ".join(f"-{_LETTERS[kind]}" for kind in kinds)
    return (
        f"join the container's namespaces ({', '.join(kinds)})",
        f"nsenter -t {{pid}} {flags}",
        "lsns -p {pid}",
    )


def _devices(operation: Operation) -> Explanation:
    directory, *rules = operation.args
    place = shlex.quote(str(directory))
    allowed = ", ".join(str(rule).partition(" ")[2] for rule in rules if str(rule).startswith("allow"))
    split = [str(rule).split(" ", 1) for rule in rules]
    writes = "; ".join(f"echo {shlex.quote(what)} > {place}/devices.{verb}" for verb, what in split)
    v1 = "/devices/" in str(directory)
    see = f"cat {place}/devices.list" if v1 else f"bpftool cgroup show {place}"
    if allowed == "a":
        return "let the container's processes use all devices", writes, see
    return (f"let the container's processes use these devices and no others: {allowed}", writes, see)


def _cgroup_write(operation: Operation) -> Explanation:
    # ?: not on every kernel; |: under another name
    path = str(operation.args[0]).rstrip("?").partition("|")[0]
    typed = shlex.quote(path)
    return (f"set {path} to {operation.args[1]}", f"echo {operation.args[1]} > {typed}", f"cat {typed}")


def _identity(operation: Operation) -> Explanation:
    uid, gid, umask, *groups = operation.args
    others = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return (
        f"become user {uid}, group {gid}",
        f"umask {umask:04o}; setpriv --reuid={uid} --regid={gid} {others} ...",
        "grep -E '^(Uid|Gid|Groups|Umask)' /proc/{pid}/status",
    )


def _sets(masks: tuple[object, ...]) -> str:
    from pyrun.spec.capabilities import ALL, names_of

    mask = masks[0]
    assert isinstance(mask, int)
    if mask & ALL == ALL:
        return "all"
    return ",".join(name[4:].lower() for name in names_of(mask)) or "none"


def _bounding(operation: Operation) -> Explanation:
    return (
        f"give up for ever every capability but: {_sets(operation.args)}",
        f"setpriv --bounding-set={_listed(operation.args[0])} ...",
        "grep CapBnd /proc/{pid}/status",
    )


def _capabilities(operation: Operation) -> Explanation:
    effective, permitted, inheritable, ambient = operation.args
    sentence = f"hold these capabilities: {_sets(operation.args)}"
    words = f"--inh-caps={_listed(inheritable)} --ambient-caps={_listed(ambient)}"
    shell = f"setpriv {words} ...  # permitted {int(permitted):#x}, effective {int(effective):#x}"
    return sentence, shell, "grep Cap /proc/{pid}/status"


def _listed(mask: object) -> str:
    """A set as setpriv(1) takes it."""
    names = _sets((mask,))
    if names in ("all", "none"):
        return "+all" if names == "all" else "-all"
    return "-all," + ",".join(f"+{name}" for name in names.split(","))


def _rlimit(operation: Operation) -> Explanation:
    from pyrun.spec.values import RLIMITS

    number, soft, hard = operation.args
    name = next((name for name, value in RLIMITS.items() if value == number), str(number))
    return (
        f"limit {name} to {soft} (at most {hard})",
        f"prlimit --pid $$ --{name}={soft}:{hard}",
        "cat /proc/{pid}/limits",
    )


def _execute(operation: Operation) -> Explanation:
    command = shlex.join(str(item) for item in operation.args)
    return (
        f"execute {command}: this process becomes the container's",
        f"exec {command}",
        "ps -o pid,args -p {pid} --ppid {pid}",
    )


def simple(sentence: str, shell: str = "", see: str = "") -> Callable[[Operation], Explanation]:
    """An entry whose arguments are put in by position: {0}, {1} ...; quoted where they are to be typed."""

    def entry(operation: Operation) -> Explanation:
        keep = {"name": "{name}", "pid": "{pid}"}
        typed = [shlex.quote(str(each)) for each in operation.args] + [""] * 3
        said = sentence.format(*operation.args, *[""] * 3, **keep)
        return said, shell.format(*typed, **keep), see.format(*typed, **keep)

    return entry


def _no_ipv6(operation: Operation) -> Explanation:
    names = [str(each) for each in operation.args]
    files = [f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6" for name in names or ["default"]]
    sentence = (
        f"see that {' and '.join(names)} came without IPv6" if names else "have no IPv6 on links that come"
    )
    return (
        sentence,
        "; ".join(f"echo 1 > {file}" for file in files),
        f"nsenter -t {{pid}} -n cat {' '.join(files)}",
    )


def _fuse_overlay(operation: Operation) -> Explanation:
    from pyrun.store import overlay_kind

    keep, *layers = [str(each) for each in operation.args]
    words = overlay_kind.command(f"{keep}/rootfs", f"{keep}/upper", f"{keep}/work", layers)
    return (
        "have fuse-overlayfs lay a writable directory over the image's layers",
        shlex.join(words),
        f"ls {shlex.quote(f'{keep}/upper')}",
    )


KINDS: dict[str, Callable[[Operation], Explanation]] = {
    "clone": _clone,
    "container-directory": simple(
        "make the container's directory: a writable layer, hosts, hostname, resolv.conf, config.json",
        "mkdir -p {0}/upper {0}/work {0}/rootfs",
        "ls {0}",
    ),
    "fuse-overlay": _fuse_overlay,
    "cgroup-make": simple("make the cgroup {0}", "mkdir -p {0}", "ls {0}"),
    "cgroup-write": _cgroup_write,
    "cgroup-devices": _devices,
    "cgroup-owner": simple("let user {1} manage what is below {0}", "chown -R {1} {0}", "ls -ld {0}"),
    "CGROUP_JOIN": simple("join the cgroup of {0}", "echo 0 > {0}", "cat /proc/{pid}/cgroup"),
    "HOSTNAME": simple("name the container {0}", "hostname {0}", "nsenter -t {pid} -u hostname"),
    "DOMAINNAME": simple("set the domain name {0}", "domainname {0}", "nsenter -t {pid} -u domainname"),
    "SYSCTL": simple(
        "set the kernel parameter {0} to {1}, for this container alone",
        "echo {1} > /proc/sys/{0}",
        "nsenter -t {pid} -n -i cat /proc/sys/{0}",
    ),
    "NO_IPV6": _no_ipv6,
    "RLIMIT": _rlimit,
    "LOOPBACK_UP": simple(
        "switch the loopback interface on", "ip link set lo up", "nsenter -t {pid} -n ip addr show lo"
    ),
    "WAIT_GO": simple("wait until the planner has done its part"),
    "OOM_SCORE": simple(
        "set the out-of-memory score to {0}",
        "echo {0} > /proc/self/oom_score_adj",
        "cat /proc/{pid}/oom_score_adj",
    ),
    "TERMINAL": simple(
        "open a terminal of the container's own as standard input, output and error",
        "script /dev/null",
        "ls -l /proc/{pid}/fd",
    ),
    "NO_NEW_PRIVILEGES": simple(
        "forbid ever gaining privileges by executing a file",
        "setpriv --no-new-privs",
        "grep NoNewPrivs /proc/{pid}/status",
    ),
    "BOUNDING": _bounding,
    "IDENTITY": _identity,
    "CAPABILITIES": _capabilities,
    "DIRECTORY_CURRENT": simple("go to {0}", "cd {0}", "readlink /proc/{pid}/cwd"),
    "ENTER": _enter,
    "admit": simple(
        "make init what it waits to be: the ids of its user namespace, the cgroup it is to be in",
        "",
        "cat /proc/{pid}/uid_map /proc/{pid}/cgroup",
    ),
    "hook": simple("run the hook {1} ({0}), with the container's state on its standard input"),
    "net-device": simple(
        "move the host's interface {0} into the container, as {1}",
        "ip link set {0} netns {pid} name {1}",
        "nsenter -t {pid} -n ip addr show {1}",
    ),
    "REAPER": simple(
        "stay as process 1 to reap orphans, and run the command as a child",
        "tini -- ...",
        "ps -o pid,args --ppid {pid}",
    ),
    "ENVIRONMENT": lambda operation: (
        f"set {len(operation.args)} environment variables",
        "env -i NAME=VALUE ...",
        "tr '\\0' '\\n' < /proc/{pid}/environ",
    ),
    "EXECUTE": _execute,
    "UNSHARE": simple(
        "make the joined cgroup the root of what the container sees of cgroups",
        "exec unshare -C",
        "nsenter -t {pid} -C cat /proc/{pid}/cgroup",
    ),
}

"""What init does to itself: namespaces, rights, limits, scheduling, the command."""

from __future__ import annotations

from pyrun.safe import shell_command, shell_word
from pyrun.spec.capabilities import ALL, names_of
from pyrun.spec.seccomp import FLAG_NEW_LISTENER
from pyrun.spec.values import RLIMITS
from pyrun.stages.namespaces import FLAGS

from .rows import NAMESPACES, Explanation, Row, letters, ranges

_POLICIES = ("other", "fifo", "rr", "batch", "iso", "idle", "deadline")
_IO_CLASSES = ("none", "realtime", "best-effort", "idle")
_MODES = ("default", "preferred", "bind", "interleave", "local", "preferred-many", "weighted-interleave")

# ── namespaces ──────────────────────────────────────────────────────────────────────────


def _namespaces(flags: int) -> tuple[list[str], str]:
    """The namespaces' kinds, and as options of unshare(1) and nsenter(1)."""
    kinds = [kind for kind in NAMESPACES if flags & FLAGS[kind]]
    return kinds, letters(kinds)


def _enter(_: int, flags: int) -> Explanation:
    """In `exec` all the container's; in a start one that the config names."""
    kinds, options = _namespaces(flags)
    if len(kinds) == 1:
        return (
            f"join the {kinds[0]} namespace that is to be shared",
            f"nsenter {options}... ...",
            "lsns -p {pid}",
        )
    return (
        f"join the container's namespaces ({', '.join(kinds)})",
        f"nsenter -t {{pid}} {options}",
        "lsns -p {pid}",
    )


def _unshare(flags: int) -> Explanation:
    """The cgroup namespace; beside a joined pid namespace all that belong to a user namespace."""
    kinds, options = _namespaces(flags)
    if kinds == ["cgroup"]:
        return (
            "make the joined cgroup the root of what the container sees of cgroups",
            "exec unshare -C",
            "nsenter -t {pid} -C cat /proc/{pid}/cgroup",
        )
    return f"make new namespaces ({', '.join(kinds)})", f"unshare {options} ...", "lsns -p {pid}"


def _no_ipv6(*links: str) -> Explanation:
    files = [shell_word(f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6") for link in links or ["default"]]
    came = f"see that {' and '.join(links)} came without IPv6"
    return (
        came if links else "have no IPv6 on links that come",
        "; ".join(f"echo 1 > {file}" for file in files),
        f"nsenter -t {{pid}} -n cat {' '.join(files)}",
    )


# ── rights and limits ──────────────────────────────────────────────────────────────────────────────


def _identity(uid: int, gid: int, umask: int, *groups: int) -> Explanation:
    others = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return (
        f"become user {uid}, group {gid}",
        f"umask {umask:04o}; setpriv --reuid={uid} --regid={gid} {others} ...",
        "grep -E '^(Uid|Gid|Groups|Umask)' /proc/{pid}/status",
    )


def _set(mask: int) -> str:
    if mask & ALL == ALL:
        return "all"
    return ",".join(name[4:].lower() for name in names_of(mask)) or "none"


def _listed(mask: int) -> str:
    """A set as setpriv(1) takes it."""
    names = _set(mask)
    if names in ("all", "none"):
        return "+all" if names == "all" else "-all"
    return "-all," + ",".join(f"+{name}" for name in names.split(","))


def _bounding(bounding: int) -> Explanation:
    return (
        f"give up for ever every capability but: {_set(bounding)}",
        f"setpriv --bounding-set={_listed(bounding)} ...",
        "grep CapBnd /proc/{pid}/status",
    )


def _capabilities(effective: int, permitted: int, inheritable: int, ambient: int) -> Explanation:
    words = f"--inh-caps={_listed(inheritable)} --ambient-caps={_listed(ambient)}"
    return (
        f"hold these capabilities: {_set(effective)}",
        f"setpriv {words} ...  # permitted {permitted:#x}, effective {effective:#x}",
        "grep Cap /proc/{pid}/status",
    )


def rlimit(resource: int, soft: int, hard: int) -> Explanation:
    """From inside, of the shell that types it."""
    name = next((name for name, value in RLIMITS.items() if value == resource), str(resource))
    return (
        f"limit {name} to {soft} (at most {hard})",
        f"prlimit --pid $$ --{name}={soft}:{hard}",
        "cat /proc/{pid}/limits",
    )


def _seccomp(_: int, flags: int, late: int) -> Explanation:
    when = "make ready the system call filter, which is loaded just before the command is executed"
    agent = ", and hand its listener to the seccomp agent" if flags & FLAG_NEW_LISTENER else ""
    return (when if late else "load the system call filter") + agent, "", "grep Seccomp /proc/{pid}/status"


def _label(_: int, value: str, file: str, *_others: str) -> Explanation:
    wanted = "the next key" if file == "keycreate" else "the program"
    return (
        f"label {wanted} {value or 'as usual'}",
        f"echo -n {shell_word(value)} > /proc/self/attr/{file}",
        f"cat /proc/{{pid}}/attr/{file}",
    )


# ── scheduling ─────────────────────────────────────────────────────────────────────────────────────


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _scheduler(
    policy: int, nice: int, priority: int, flags: int, runtime_ns: int, deadline_ns: int, period_ns: int
) -> Explanation:
    name = _named(_POLICIES, policy)
    times = {"runtime": runtime_ns, "deadline": deadline_ns, "period": period_ns}
    given = [(word, time) for word, time in times.items() if time]
    details = f", nice {nice}" if nice else ""
    details += f", priority {priority}" if priority else ""
    details += "".join(f", {word} {time} ns" for word, time in given)
    details += f", flags {flags:#x}" if flags else ""
    options = "".join(f" --sched-{word} {time}" for word, time in given)
    shell = f"chrt --{name}{options} --pid {priority} $$" + (f"; renice -n {nice} $$" if nice else "")
    return f"be scheduled as {name}{details}", shell, "chrt --pid {pid}"


def _io_priority(value: int) -> Explanation:
    kind, level = value >> 13, value & 0x1FFF
    return (
        f"have the I/O priority {_named(_IO_CLASSES, kind)} {level}",
        f"ionice -c {kind} -n {level} -p $$",
        "ionice -p {pid}",
    )


def _affinity(*bounds: int) -> Explanation:
    see = "taskset -c -p {pid}"
    if not bounds:
        return "run on every processor of the cgroup, whichever pyrun was started on", "", see
    cpus = ranges(bounds)
    return f"run on the processors {cpus}", f"taskset -c -p {cpus} $$", see


def _memory_policy(mode: int, *nodes: int) -> Explanation:
    name = _named(_MODES, mode & 0x1FFF)
    where, option = (f" from the nodes {ranges(nodes)}", f"={ranges(nodes)}") if nodes else ("", "")
    return f"get memory by the policy {name}{where}", f"numactl --{name}{option} ...", "numactl --show"


# ── the command ────────────────────────────────────────────────────────────────────────────────────


def _session(keyring: int, keyring_name: str = "") -> Explanation:
    words = f"begin a session{' and a keyring' if keyring else ''} of its own"
    if keyring_name:
        words = f"begin a session of its own, with the container's keyring {keyring_name}"
    return words, "setsid ...", "ps -o pid,sid -p {pid}"


def _environment(*variables: str) -> Explanation:
    return (
        f"set {len(variables)} environment variables",
        "env -i NAME=VALUE ...",
        "tr '\\0' '\\n' < /proc/{pid}/environ",
    )


def _look_up(command: str, uid: int, _gid: int, _effective: int, path: str, *_groups: int) -> Explanation:
    where, look = "" if "/" in command else f" in {path}", f"command -v {shell_word(command)}"
    return (
        f"look for the program {command}{where}, as user {uid}",
        f"setpriv --ruid={uid} env PATH={shell_word(path)} sh -c {shell_word(look)}",
        "",
    )


def _execute(program: str, *arguments: str) -> Explanation:
    command = shell_command([program, *arguments])
    return (
        f"execute {command}: this process becomes the container's",
        f"exec {'-- ' if command[:1] == '-' else ''}{command}",
        "ps -o pid,args -p {pid} --ppid {pid}",
    )


def _hook(
    path: str, timeout_s: int, directory: str, head: str, tail: str, count: int, *given: str
) -> Explanation:
    command = shell_command([path, *given[:count][1:]])
    entered = f"cd {shell_word(directory)}; " if directory else ""
    limit = f"timeout {timeout_s} " if timeout_s else ""
    return (
        f"run the hook {path}, with the container's state on its standard input",
        f"{entered}echo {shell_word(f'{head}PID{tail}')} | env -i {limit}{command}",
        "",
    )


ROWS = {
    "ENTER": Row("namespaces", _enter),
    "UNSHARE": Row("namespaces", _unshare),
    "PID_NAMESPACE": Row("namespaces", "fd now", "have /proc show the pid namespace of descriptor {fd}",
        see="readlink /proc/{pid}/ns/pid"),
    "ROOT_IDENTITY": Row("namespaces", "", "become root of the user namespace", "setpriv --reuid 0 --regid 0",
        "cat /proc/{pid}/uid_map"),
    "HOSTNAME": Row("namespaces", "hostname", "name the container {hostname}", "hostname {hostname}",
        "nsenter -t {pid} -u hostname"),
    "DOMAINNAME": Row("namespaces", "domain", "set the domain name {domain}", "domainname {domain}",
        "nsenter -t {pid} -u domainname"),
    "SYSCTL": Row("namespaces", "key value", "set the kernel parameter {key} to {value}, for this container alone",
        "echo {value} > /proc/sys/{key}", "nsenter -t {pid} -n -i cat /proc/sys/{key}"),
    "LOOPBACK_UP": Row("network", "", "switch the loopback interface on", "ip link set lo up",
        "nsenter -t {pid} -n ip addr show lo"),
    "NO_IPV6": Row("network", _no_ipv6),
    "CGROUP_JOIN": Row("cgroup", "tasks", "join the cgroup of {tasks}", "echo 0 > {tasks}",
        "cat /proc/{pid}/cgroup"),
    "GUARD": Row("process", "",
        "keep processes in the container from tracing this one or seeing its descriptors until the command is executed",
        see="ls -ld /proc/{pid}/fd"),
    "PROCFS": Row("process", "fd...",
        "open a /proc of its own, before parts of the container's are hidden"),
    "WAIT_GO": Row("process", "", "wait until the planner has done its part"),
    "SESSION": Row("process", _session),
    "TERMINAL": Row("process", "rows columns uid console controls plain",
        "open a terminal of the container's own as standard input, output and error", "script /dev/null",
        "ls -l /proc/{pid}/fd"),
    "RLIMIT": Row("process", rlimit),
    "OOM_SCORE": Row("process", "score", "set the out-of-memory score to {score}",
        "echo {score} > /proc/self/oom_score_adj", "cat /proc/{pid}/oom_score_adj"),
    "SCHEDULER": Row("process", _scheduler),
    "IO_PRIORITY": Row("process", _io_priority),
    "AFFINITY": Row("process", _affinity),
    "MEMORY_POLICY": Row("process", _memory_policy),
    "PERSONALITY": Row("process", "persona", "have the personality {persona} (8: a 32-bit machine)",
        "setarch linux32 ...", "cat /proc/{pid}/personality"),
    "DIRECTORY_CURRENT": Row("process", "path", "go to {path}", "cd {path}", "readlink /proc/{pid}/cwd"),
    "LOOK_UP": Row("process", _look_up),
    "REAPER": Row("process", "", "stay as process 1 to reap orphans, and run the command as a child",
        "tini -- ...", "ps -o pid,args --ppid {pid}"),
    "BIRTH": Row("process", "report mailbox terminal kept...",
        "clone the command's process into its pid namespace, without descriptors or rights of the host",
        see="readlink /proc/{pid}/ns/pid"),
    "START": Row("process", "listening kept...", "tell `create` that the container is there, and wait for `start`",
        see="cat /proc/{pid}/cmdline"),
    "PRESERVE": Row("process", "first count", "hand on {count} descriptors of the caller's, from 3 on",
        see="ls -l /proc/{pid}/fd"),
    "ENVIRONMENT": Row("process", _environment),
    "EXECUTE": Row("process", _execute),
    "STREAMS": Row("security", "uid",
        "give user {uid} the pipes among standard input, output and error, and have the container's /dev/null "
        "for the host's", "for each in stdin stdout stderr; do test -p /dev/$each && chown {uid} /dev/$each; done",
        "ls -lL /proc/{pid}/fd"),
    "LABEL": Row("security", _label),
    "IDENTITY": Row("security", _identity),
    "BOUNDING": Row("security", _bounding),
    "CAPABILITIES": Row("security", _capabilities),
    "NO_NEW_PRIVILEGES": Row("security", "", "forbid ever gaining privileges by executing a file",
        "setpriv --no-new-privs", "grep NoNewPrivs /proc/{pid}/status"),
    "SECCOMP": Row("security", _seccomp),
    "HOOK": Row("hooks", _hook),
}  # fmt: skip

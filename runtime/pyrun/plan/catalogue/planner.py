"""What the planner does beside the network: the container's directory, its cgroup, its birth, hooks of the host's."""

from __future__ import annotations

from pyrun.safe import shell_command, shell_word

from .process import rlimit
from .rows import Explanation, Row, letters


def _clone(*kinds: str) -> Explanation:
    if not kinds:
        return "start init in the namespaces that are there", "", "lsns -p {pid}"
    return (
        f"make new namespaces ({', '.join(kinds)}) and start init in them",
        f"unshare {letters(kinds)}{' -f' if 'pid' in kinds else ''} ...",
        "lsns -p {pid}",
    )


def _join(kind: str, path: str) -> Explanation:
    return (
        f"join the {kind} namespace that is to be shared, which root of the user namespace may not",
        f"nsenter --{'net' if kind == 'network' else kind}={shell_word(path)} ...",
        "lsns -p {pid}",
    )


def _devices(directory: str, *rules: str) -> Explanation:
    place = shell_word(directory)
    allowed = ", ".join(rule.partition(" ")[2] for rule in rules if rule.startswith("allow"))
    split = [rule.split(" ", 1) for rule in rules]
    writes = "; ".join(f"echo {shell_word(what)} > {place}/devices.{verb}" for verb, what in split)
    see = f"cat {place}/devices.list" if "/devices/" in directory else f"bpftool cgroup show {place}"
    if allowed == "a":
        return "let the container's processes use all devices", writes, see
    return f"let the container's processes use these devices and no others: {allowed}", writes, see


def _cgroup_write(path: str, value: str, _: str = "") -> Explanation:
    path = path.rstrip("?").partition("|")[0]  # ?: not on every kernel; |: under another name
    typed = shell_word(path)
    return f"set {path} to {value}", f"echo {shell_word(value)} > {typed}", f"cat {typed}"


def _fuse_overlay(keep: str, *layers: str) -> Explanation:
    from pyrun.store import overlay_kind

    words = overlay_kind.command(f"{keep}/rootfs", f"{keep}/upper", f"{keep}/work", list(layers))
    return (
        "have fuse-overlayfs lay a writable directory over the image's layers",
        shell_command(words),
        f"ls {shell_word(f'{keep}/upper')}",
    )


def _rlimit(resource: int, soft: int, hard: int) -> Explanation:
    words, shell, see = rlimit(resource, soft, hard)
    return words, shell.replace("$$", "{pid}"), see


ROWS = {
    "oom-score": Row("process", "score", "set the out-of-memory score to {score}",
        "echo {score} > /proc/{pid}/oom_score_adj", "cat /proc/{pid}/oom_score_adj"),
    "rlimit": Row("process", _rlimit),
    "container-directory": Row("rootfs", "keep",
        "make the container's directory: a writable layer, hosts, hostname, resolv.conf, config.json",
        "mkdir -p {keep}/upper {keep}/work {keep}/rootfs", "ls {keep}", by="pyrun.engine.run:_make"),
    "fuse-overlay": Row("rootfs", _fuse_overlay, by="pyrun.store.overlay_kind:mount_fuse"),
    "cgroup-make": Row("cgroup", "path mount names", "make the cgroup {path}", "mkdir -p {path}", "ls {path}"),
    "cgroup-write": Row("cgroup", _cgroup_write),
    "cgroup-devices": Row("cgroup", _devices),
    "cgroup-owner": Row("cgroup", "path uid", "let user {uid} manage what is below {path}",
        "chown -R {uid} {path}", "ls -ld {path}"),
    "clone": Row("namespaces", _clone, by="pyrun.launch:_born"),
    "join": Row("namespaces", _join, by="pyrun.launch:_born"),
    "admit": Row("namespaces", "",
        "make init what it waits to be: the ids of its user namespace, the cgroup it is to be in",
        see="cat /proc/{pid}/uid_map /proc/{pid}/cgroup", by="pyrun.launch:_admit"),
    "net-device": Row("network", "device inside",
        "move the host's interface {device} into the container, as {inside}",
        "ip link set {device} netns {pid} name {inside}", "nsenter -t {pid} -n ip addr show {inside}",
        by="pyrun.network.net_devices:take"),
    "hook": Row("hooks", "kind path",
        "run the hook {path} ({kind}), with the container's state on its standard input",
        by="pyrun.engine.oci.hooks:run"),
}  # fmt: skip

"""Inputs to begin with, from what the product itself writes: plans of the real encoder, undo lists, monitors' words."""

from __future__ import annotations

import re
from pathlib import Path

from fuzzing import CSRC
from jobs import container_of, job_of
from pyrun.plan import plan
from pyrun.spec import config as configs

_IMAGE = {
    "layers": ["/l1", "/l2"],
    "config": {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"], "WorkingDir": "/srv"},
}

OPTIONS: tuple[dict[str, object], ...] = (
    {},
    {"read_only": True, "init": True},
    {"tty": True, "interactive": True},
    {"security_opt": ["no-new-privileges"], "user": "1000:1000"},
    {"privileged": True, "env": ["A=b"], "sysctl": ["net.ipv4.ip_forward=1"]},
    {"volume": ["/tmp:/mnt:ro"], "tmpfs": ["/scratch:size=1m"], "ulimit": ["nofile=1:2"]},
)
_UNDO = """# what a bridged container's list looks like
kill-cgroup\t/sys/fs/cgroup/memory/pyrun/x
guard\t/run/pyrun/boot\t0f3c
netlink\t0\t20000000100005000100000000000000000000000000000000000000ffffffff
netlink\t12\t14000000100a01000000000000000000000000001400000002060500010000000000000000000000
unlink-if\t/run/pyrun/names/n\taaaa
end
umount\t/run/netns/n
rmcgroup\t/sys/fs/cgroup/memory/pyrun/x
unlink\t/run/pyrun/a
rmdir\t/run/pyrun/b
rmtree\t/run/pyrun/containers/aaaa
"""
_ACK = bytes.fromhex("240000000200000001000000000000000000000014000000100005000100000000000000")
_QUICK = (
    b"12\0" + b"5512\0" + b"sdp\0" + b"/sys/fs/cgroup/f\0" + b'{"pid": \0' + b', "status": "\0' + b'"}\n\0'
)
_STAT = b"12 (a b) S " + b" ".join([b"1"] * 18) + b" 5512 7 8\n"
# an error of the least number there is
_NO_ERRNO = bytes.fromhex("240000000200000001000000000000000000008000000000000000000000000000000000")
_ODD = bytes([17]) + bytes(16)  # a message whose length is no multiple of 4
_WORDS = ("pid=12\npidfd=7\nid=abc\nrun=/run/pyrun/abc\nundo_fd=8\nstdin=9\nstdout=10\nstderr=11\nstatus=1",
          "pid=12\ntty=5\ninteractive=1\nsigproxy=1\ndetach=0\nkeep=/k\nlog=/k/log\ntiming=2",
          "bogus\npid=x\npid=")  # fmt: skip


def real_plans() -> list[bytes]:
    """Plans of several command lines, as init would read them."""
    found = []
    for options in OPTIONS:
        config = configs.build(dict(options), _IMAGE, [], container_of())
        if "tty" in options:
            config["process"]["terminal"] = True
        job = job_of(
            [("memory", "/sys/fs/cgroup/memory", "/")], [("memory", "/sys/fs/cgroup/memory/pyrun/x")],
            keep="/keep", layers=["/l2", "/l1"], namespaces=["cgroup"], rm=True, loopback=True, seccomp=(5, 0),
            window=(24, 80),
        )  # fmt: skip
        found.append(plan.encode(plan.compose(config, job)))
    return found


def every_operation(source: Path = CSRC) -> list[bytes]:
    """One plan for each operation of init's table, with arguments of the kinds it takes, and two that do not fit."""
    numbers = dict(re.findall(r"^#define (OP_\w+) (\d+)", (source / "ops.h").read_text(), re.MULTILINE))
    table = re.findall(r'\[(OP_\w+)\] = \{\w+, "([^"]*)"\}', (source / "init.c").read_text())
    assert len(table) > 30, "init.c's table of operations does not look as expected any more"
    found = []
    for name, kinds in table:
        arguments = []
        for kind in kinds:
            arguments += {"s": ["/a/b"], "n": ["1"], "*": ["PATH=/bin", "x"], "#": ["10", "20"]}[kind]
        found.append("\0".join([numbers[name], str(len(arguments)), *arguments, ""]).encode())
    return [*found, b"1\0002\0a\0", b"99\0000\0"]


def write(target: str, directory: Path) -> Path:
    """The seeds of *target* as files in *directory*, which is returned."""
    inputs = {
        "plan": lambda: [*real_plans(), *every_operation()],
        "operations": lambda: [*real_plans(), *every_operation(), b"".join(every_operation()[:-2])],
        "undo": lambda: [
            _UNDO.encode(),
            *(line.encode() + b"\n" for line in _UNDO.splitlines()),
            _ACK,
            _ACK * 2,
            _NO_ERRNO,
            _ODD,
            b"netlink\t0\t" + _ODD.hex().encode() + b"\n",
        ],
        "quick": lambda: [
            b"\1".join([f"--root=/r\2{words}".encode(), _QUICK, _STAT, b"pyrun-init\0"])
            for words in (
                "start\2a",
                "state\2a",
                "kill\2a\2TERM",
                "kill\2a\0029",
                "delete\2a",
                "delete\2-f\2a",
            )
        ],
        "numbers": lambda: [b"1\n0\n9223372036854775807\n12a\n", b"18446744073709551616\n007\n-1\n"],
        "monitor": lambda: [words.encode() for words in _WORDS],
    }[target]()
    directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(inputs):
        (directory / f"{number:03}").write_bytes(data[:8192])
    return directory

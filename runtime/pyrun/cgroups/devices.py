"""New device rules for a container that runs.

v1: the lists are rewritten, but only when the rules differ from those in force, and while nobody of the container
runs: between `deny a` and the last `allow` a process would be refused what it may have. v2: the new program is
attached first, then the one before it is taken off; ours is known by its name, for systemd may have one there too.
Source: cgroup-v1/devices.rst, man 2 bpf (BPF_PROG_QUERY, BPF_PROG_DETACH), linux/bpf.h.
"""

from __future__ import annotations

import posix

from pyrun import device_rules, linux
from pyrun.errors import PyrunError, StageFailed

from . import freezer
from .layout import Group

_QUERY, _BY_ID, _INFO, _DETACH = 16, 13, 15, 9
_MOST = 64


def replace(groups: list[Group], before: list[str], after: list[str]) -> None:
    """Put *after* into force where *before* was; both as device_rules.lines(). Raises StageFailed."""
    if before == after:
        return
    place = {name: directory for names, directory in groups for name in names.split(",")}
    if "devices" in place:
        _rewrite(groups, place["devices"], after)
    elif "unified" in place:
        _exchange(place["unified"], after)


def _rewrite(groups: list[Group], directory: str, lines: list[str]) -> None:
    frozen = freezer.is_frozen(groups)
    try:
        if not frozen:
            freezer.freeze(groups)
    except PyrunError:
        frozen = True  # a kernel without a freezer: then a moment without devices it is
    try:
        device_rules.apply(directory, *lines)
    finally:
        if not frozen:
            freezer.thaw(groups)


def _exchange(directory: str, lines: list[str]) -> None:
    group_fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        old = attached(group_fd)
        device_rules.apply(directory, *lines)
        for number in old:
            program_fd = linux.bpf(_BY_ID, number.to_bytes(4, "little") + bytes(44))
            try:
                if name_of(program_fd) == device_rules.PROGRAM_NAME:
                    words = (group_fd, program_fd, device_rules.ATTACH_TYPE, 0)
                    linux.bpf(_DETACH, b"".join([word.to_bytes(4, "little") for word in words]) + bytes(16))
            finally:
                posix.close(program_fd)
    except OSError as error:
        raise StageFailed("cgroup", f"replace the device rules of {directory}", error.errno) from None
    finally:
        posix.close(group_fd)


def attached(group_fd: int) -> list[int]:
    """The ids of the device programs of a cgroup, in the order they were attached."""
    ids = linux.ffi.new("uint32_t[]", _MOST)
    address = int(linux.ffi.cast("uintptr_t", ids))
    head = group_fd.to_bytes(4, "little") + device_rules.ATTACH_TYPE.to_bytes(4, "little") + bytes(8)
    query = head + address.to_bytes(8, "little") + _MOST.to_bytes(4, "little") + bytes(36)
    linux.bpf(_QUERY, query)
    return [int(number) for number in ids if number]  # the kernel counts from 1


def name_of(program_fd: int) -> bytes:
    """The name a program was loaded with (struct bpf_prog_info)."""
    info = linux.ffi.new("char[]", 256)
    address = int(linux.ffi.cast("uintptr_t", info))
    head = program_fd.to_bytes(4, "little") + (256).to_bytes(4, "little") + address.to_bytes(8, "little")
    linux.bpf(_INFO, head + bytes(16))
    return bytes(linux.ffi.buffer(info)[64:80]).rstrip(b"\0")

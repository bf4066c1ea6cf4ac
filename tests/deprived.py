"""A command on a host that lacks something: `deprived("ipv6", ...)` puts words in front of it.

    ipv6      sockets of IPv6 cannot be made, and /proc/sys/net/ipv6 is empty: a kernel started with ipv6.disable=1
    nft       netfilter cannot be spoken to: a kernel without nf_tables
    status    a pidfd does not tell how a process ended that is reaped: Linux 6.13 and 6.14
    signalfd  no descriptor for signals: a kernel without CONFIG_SIGNALFD

A seccomp filter answers as that kernel would; it stays with everything that is started. Source: man 2 seccomp.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_AF_INET6, _AF_NETLINK, _NETLINK_NETFILTER = 10, 16, 12
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xff, 11, 64 bytes)
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _FIRST, _SECOND, _THIRD = 0, 16, 24, 32
_PR_SET_SECCOMP, _FILTER = 22, 2
_CLONE_NEWNS, _PRIVATE = 0x00020000, 0x00044000

# The call (x86_64, aarch64), its arguments, and how it ends.
LACKING: dict[str, tuple[tuple[int, int], list[tuple[int, int]], int]] = {
    "ipv6": ((41, 198), [(_FIRST, _AF_INET6)], errno.EAFNOSUPPORT),
    "nft": ((41, 198), [(_FIRST, _AF_NETLINK), (_THIRD, _NETLINK_NETFILTER)], errno.EPROTONOSUPPORT),
    "status": ((16, 29), [(_SECOND, _PIDFD_GET_INFO)], errno.ESRCH),
    "signalfd": ((289, 74), [], errno.ENOSYS),
}


def deprived(what: str) -> list[str]:
    """The words to put in front of a command."""
    assert what in LACKING
    return [sys.executable, "-I", __file__, what]


def _program(what: str) -> bytes:
    """The call with these arguments ends with an error; everything else is allowed."""
    calls, arguments, number = LACKING[what]
    checks = [(_NUMBER, calls[os.uname().machine == "aarch64"]), *arguments]
    lines = []
    for place, (offset, wanted) in enumerate(checks):
        to_the_end = 2 * (len(checks) - place) - 1
        lines += [(_LOAD, 0, 0, offset), (_EQUAL, 0, to_the_end, wanted)]
    lines += [(_RETURN, 0, 0, _ERRNO | number), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def main(what: str, command: list[str]) -> None:
    """Never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    if what == "ipv6":
        failed = libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _PRIVATE, None)
        failed = failed or libc.mount(b"none", b"/proc/sys/net/ipv6", b"tmpfs", 0, None)
        if failed:
            sys.exit(f"deprived: {os.strerror(ctypes.get_errno())}")
    program = _program(what)
    buffer = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(description, len(description)), 0, 0):
        sys.exit(f"deprived: seccomp: {os.strerror(ctypes.get_errno())}")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

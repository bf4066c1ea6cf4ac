"""The seccomp compiler: an OCI profile becomes a BPF program, by libseccomp through ctypes.

libseccomp knows every architecture's system call numbers and builds the search tree; we export its program
instead of loading it. In front of it comes what runc puts there too: a system call newer than the newest one
of the profile answers ENOSYS, not the profile's EPERM, because a C library tries new calls first and falls
back to old ones on ENOSYS alone. Without this, an old profile or an old libseccomp breaks new images.

Not here: reading profiles (seccomp_profile.py), checking them (seccomp_check.py), the cache (seccomp.py).
Source: man 3 seccomp_rule_add, linux/filter.h, runc libcontainer/seccomp (behaviour only).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from pyrun.errors import PyrunError, UsageError
from pyrun.spec.seccomp import INSTRUCTION_BYTES, INSTRUCTIONS_MAX
from pyrun.spec.seccomp_check import ACTIONS, OPERATORS, WITH_ERRNO, check

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Seccomp, SyscallRule

CACHED_PROGRAMS_MAX = 256

_NO_SUCH_NAME = -1  # __NR_SCMP_ERROR; other negative numbers stand for calls of another architecture
_NO_NEW_PRIVILEGES, _OPTIMIZE = 3, 8  # enum scmp_filter_attr
_BINARY_TREE = 2
_WORTH_A_TREE = 32  # rules; libseccomp <= 2.5.4 fails to build a tree of none

_X32, _X86_64 = 0x4000003E, 0xC000003E  # SCMP_ARCH_*; all but x32's are the kernel's AUDIT_ARCH_* too
_S390 = (0x00000016, 0x80000016)
_X32_BIT = 0x40000000


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: argument number, operator, and one or two operands."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _library() -> ctypes.CDLL:
    """libseccomp with the signatures of what is called here. Raises PyrunError if it is not installed."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise PyrunError(
            "cannot compile the seccomp profile: libseccomp.so.2 is not installed",
            "apt-get install libseccomp2; or start without it: --security-opt seccomp=unconfined",
        ) from None
    context, text, u32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    for name, result, arguments in (
        ("init", context, (u32,)),
        ("release", None, (context,)),
        ("arch_native", u32, ()),
        ("arch_resolve_name", u32, (text,)),
        ("arch_add", ctypes.c_int, (context, u32)),
        ("attr_set", ctypes.c_int, (context, ctypes.c_int, u32)),
        ("syscall_resolve_name", ctypes.c_int, (text,)),
        ("syscall_resolve_name_arch", ctypes.c_int, (u32, text)),
        (
            "rule_add_array",
            ctypes.c_int,
            (context, u32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)),
        ),
        ("export_bpf", ctypes.c_int, (context, ctypes.c_int)),
        ("version", ctypes.POINTER(ctypes.c_uint * 3), ()),
    ):
        function = library["seccomp_" + name]
        function.restype, function.argtypes = result, arguments
        setattr(library, "seccomp_" + name, function)
    return library


def version() -> str:
    """libseccomp's version, such as 2.5.4. Raises PyrunError if it is not installed."""
    return ".".join(str(number) for number in _library().seccomp_version().contents)


def compile_profile(profile: Seccomp) -> bytes:
    """The BPF program (an array of struct sock_filter) of an OCI `linux.seccomp` object.

    Raises UsageError for a profile that is faulty or gives too long a program;
    PyrunError without libseccomp. An empty profile allows everything.
    """
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return _instruction(_RETURN, ACTIONS["SCMP_ACT_ALLOW"])
    check(profile)
    library = _library()
    default = _code(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise UsageError(f"linux.seccomp.defaultAction: this kernel lacks {profile['defaultAction']}")
    try:
        architectures = _add_architectures(library, context, profile.get("architectures") or [])
        library.seccomp_attr_set(context, _NO_NEW_PRIVILEGES, 0)
        rules = profile.get("syscalls") or []
        if sum(len(rule["names"]) for rule in rules) > _WORTH_A_TREE:
            library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)  # older ones lack it: a longer program
        for rule in rules:
            _add_rule(library, context, rule, default)
        program = _newer_calls(library, profile, architectures) + _export(library, context)
    finally:
        library.seccomp_release(context)
    if len(program) > INSTRUCTIONS_MAX * INSTRUCTION_BYTES:
        raise UsageError(
            f"linux.seccomp.syscalls: the program has {len(program) // INSTRUCTION_BYTES} instructions, "
            f"{INSTRUCTIONS_MAX} is the kernel's limit"
        )
    return program


def _code(action: str, errno_ret: int | None) -> int:
    """The kernel's number for an action."""
    code = ACTIONS[action]
    if action in WITH_ERRNO:
        code |= errno.EPERM if errno_ret is None else errno_ret
    return code


def _add_architectures(library: ctypes.CDLL, context: int, names: list[str]) -> list[int]:
    """Tell libseccomp; returns all tokens, the native one first: it is always part of a filter."""
    native = library.seccomp_arch_native()
    tokens = [native]
    for name in names:
        token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        problem = library.seccomp_arch_add(context, token) if token else -errno.EINVAL
        if problem not in (0, -errno.EEXIST):
            raise UsageError(f"linux.seccomp.architectures: this machine's libseccomp lacks {name}")
        if token not in tokens:
            tokens.append(token)
    return tokens


def _add_rule(library: ctypes.CDLL, context: int, rule: SyscallRule, default: int) -> None:
    """One entry of `syscalls`. As in runc, skipped are names libseccomp does not know and the default action."""
    action = _code(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    comparisons = [
        _Comparison(each["index"], OPERATORS[each["op"]], each["value"], each.get("valueTwo") or 0)
        for each in rule.get("args") or []
    ]
    # Several comparisons of different arguments must all be true. libseccomp takes an argument once per rule;
    # runc then makes each comparison a rule of its own (any suffices), and so profiles are written for that.
    together = [comparisons]
    if len({each.argument for each in comparisons}) < len(comparisons):
        together = [[each] for each in comparisons]
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode("utf-8", "surrogateescape"))
        if number == _NO_SUCH_NAME:
            continue
        for chosen in together:
            array = (_Comparison * len(chosen))(*chosen)
            problem = library.seccomp_rule_add_array(context, action, number, len(chosen), array)
            if problem:
                raise UsageError(
                    f"linux.seccomp.syscalls: no rule for {name}: {os.strerror(-problem).lower()}"
                )


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with open(fd, "rb") as file:
        if problem := library.seccomp_export_bpf(context, fd):
            raise PyrunError(f"libseccomp cannot build the program: {os.strerror(abs(problem)).lower()}")
        file.seek(0)
        return file.read()


# ── system calls newer than the profile ────────────────────────────────────────────────────────────

# linux/bpf_common.h: load a word of struct seccomp_data, jump if equal, greater, greater or equal, return.
_LOAD, _EQUAL, _GREATER, _NOT_LESS, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE = 0, 4
_ENOSYS = ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter; the jumps count the instructions to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _newer_calls(library: ctypes.CDLL, profile: Seccomp, architectures: list[int]) -> bytes:
    """A block per architecture: numbers above the profile's highest give ENOSYS; all else goes on.

    Nothing for a permissive default (a tracer or an agent answers by itself) or one that is ENOSYS anyhow.
    """
    action = profile["defaultAction"]
    if action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"):
        return b""
    if _code(action, profile.get("defaultErrnoRet")) == _ENOSYS:
        return b""
    names = {
        name.encode("utf-8", "surrogateescape")
        for rule in profile.get("syscalls") or []
        for name in rule["names"]
    }
    blocks = []
    for token in architectures:
        highest = max((library.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=0)
        if highest > 0:
            blocks.append(_block(token, highest))
    return b"".join(blocks)


def _block(token: int, highest: int) -> bytes:
    """`if arch == token and highest < nr (and nr is no x32 number): return ENOSYS`."""
    checks = [_instruction(_LOAD, _OFFSET_NUMBER)]
    if token in _S390:  # number 0 is how the kernel shows a call it does not know there; runc does so too
        checks += [_instruction(_EQUAL, 0, 0, 1), _instruction(_RETURN, _ENOSYS)]
    if token == _X86_64:
        checks += [_instruction(_GREATER, highest, 0, 2), _instruction(_NOT_LESS, _X32_BIT, 1, 0)]
    else:
        checks += [_instruction(_GREATER, highest, 0, 1)]
    checks.append(_instruction(_RETURN, _ENOSYS))
    audit = _X86_64 if token == _X32 else token
    head = [_instruction(_LOAD, _OFFSET_ARCHITECTURE), _instruction(_EQUAL, audit, 0, len(checks))]
    return b"".join(head + checks)


# ── beside the programs ────────────────────────────────────────────────────────────────────────────


def note_library(link: str) -> None:
    """Point *link* to the libseccomp in use, whose inode and time are part of every program's key."""
    _library()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        found = [line.rstrip("\n").partition("/")[2] for line in maps if "/libseccomp.so" in line]
    if not found:
        return
    beside = f"{link}.{os.getpid()}.tmp"
    os.symlink("/" + found[0], beside)
    os.rename(beside, link)


def forget_old(directory: str) -> None:
    """Remove the oldest programs when there are too many: a new kernel leaves the old one's behind."""
    programs = sorted(
        (entry.stat().st_mtime_ns, entry.path)
        for entry in os.scandir(directory)
        if entry.name.endswith(".bpf")
    )
    for _, path in programs[: max(0, len(programs) - CACHED_PROGRAMS_MAX + 1)]:
        os.unlink(path)

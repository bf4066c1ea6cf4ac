"""What makes a seccomp profile valid: the words of OCI's form and the check of every field.

Errors name the field as the runtime-spec does and the value. Not here: Docker's form of profiles
(seccomp_profile.py), turning one into a program (seccomp_compile.py). Source: runtime-spec config-linux.md#seccomp.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pyrun.errors import UsageError
from pyrun.spec.seccomp import FLAGS

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Object, Seccomp

FIELD = "linux.seccomp"

# seccomp(2): what the kernel does when a rule matches. For ERRNO and TRACE the errno is or'ed in.
ACTIONS = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
}
SOCKET_PATH_MAX = 107  # struct sockaddr_un, less its NUL
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
ARCHITECTURES = tuple(
    "SCMP_ARCH_" + name
    for name in (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE "
        "S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)


def check(profile: Seccomp) -> None:
    """Raise UsageError, naming field and value, unless *profile* is an OCI `linux.seccomp` we can carry out."""
    check_outside_program(profile)
    _action(profile, "defaultAction", "defaultErrnoRet", f"{FIELD}.")
    for number, name in enumerate(list_of(profile.get("architectures") or [], f"{FIELD}.architectures")):
        _known(name, ARCHITECTURES, f"{FIELD}.architectures[{number}]")
    for number, rule in enumerate(list_of(profile.get("syscalls") or [], f"{FIELD}.syscalls")):
        _check_rule(object_of(rule, f"{FIELD}.syscalls[{number}]"), f"{FIELD}.syscalls[{number}].")


def check_outside_program(profile: Seccomp) -> None:
    """Raise UsageError for a faulty flag or listener: what the compiled program says nothing about."""
    for number, flag in enumerate(list_of(profile.get("flags") or [], f"{FIELD}.flags")):
        _known(flag, FLAGS, f"{FIELD}.flags[{number}]")
    path, metadata = profile.get("listenerPath"), profile.get("listenerMetadata")
    for name, value in (("listenerPath", path), ("listenerMetadata", metadata)):
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise UsageError(f"{FIELD}.{name}: not a string without NUL: {value!r:.100}")
    if path and len(path.encode("utf-8", "surrogateescape")) > SOCKET_PATH_MAX:
        raise UsageError(f"{FIELD}.listenerPath: longer than a socket's path may be: {path!r:.100}")
    if metadata and not path:
        raise UsageError(f"{FIELD}.listenerMetadata: must not be set without {FIELD}.listenerPath")


def _check_rule(rule: Mapping[str, object], where: str) -> None:
    _action(rule, "action", "errnoRet", where)
    names = list_of(rule.get("names"), where + "names")
    if not names or not all(isinstance(name, str) and name and "\0" not in name for name in names):
        raise UsageError(f"{where}names: not a list of system calls: {names!r:.100}")
    for number, argument in enumerate(list_of(rule.get("args") or [], where + "args")):
        place = f"{where}args[{number}]"
        argument = object_of(argument, place)
        _known(argument.get("op"), OPERATORS, f"{place}.op")
        _number(argument.get("index"), 5, f"{place}.index")
        _number(argument.get("value"), (1 << 64) - 1, f"{place}.value")
        _number(argument.get("valueTwo") or 0, (1 << 64) - 1, f"{place}.valueTwo")


def _action(holder: Mapping[str, object], action: str, errno_ret: str, where: str) -> None:
    _known(holder.get(action), ACTIONS, where + action)
    if holder.get(errno_ret) is not None:
        _number(holder[errno_ret], 0xFFFF, where + errno_ret)
        if holder[action] not in WITH_ERRNO:  # the runtime-spec says MUST
            raise UsageError(f"{where}{errno_ret}: {holder[action]} takes no errno")


def _known(value: object, table: Iterable[str], where: str) -> None:
    names = list(table)
    if value not in names:
        near = difflib.get_close_matches(value[:50], names, n=1) if isinstance(value, str) else []
        listed = f"one of {', '.join(names)}" if len(names) <= len(ACTIONS) else ""
        raise UsageError(f"{where}: unknown: {value!r:.100}", f"did you mean {near[0]}?" if near else listed)


def _number(value: object, maximum: int, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise UsageError(f"{where}: not a number from 0 to {maximum}: {value!r:.100}")


def list_of(value: object, where: str) -> list[Any]:
    """*value* if it is a list; UsageError otherwise."""
    if not isinstance(value, list):
        raise UsageError(f"{where}: not a list: {value!r:.100}")
    return value


def words_of(value: object, where: str) -> list[str]:
    """*value* if it is a list of strings; UsageError otherwise."""
    words = list_of(value, where)
    if not all(isinstance(word, str) for word in words):
        raise UsageError(f"{where}: not a list of strings: {value!r:.100}")
    return words


def object_of(value: object, where: str) -> Object:
    """*value* if it is an object; UsageError otherwise."""
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not an object: {value!r:.100}")
    return value

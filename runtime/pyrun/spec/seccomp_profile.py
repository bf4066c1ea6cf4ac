"""Seccomp profiles as data: Docker's default and the files a user gives.

A profile in OCI's form (`linux.seccomp`) is final. Docker's form adds conditions to each rule: capabilities of
the container, architecture, kernel version; they are decided here, by the rules of moby/profiles
seccomp/seccomp_linux.go. Not here: what makes a profile valid (seccomp_check.py), turning it into a program
(seccomp_compile.py), the cache (seccomp.py).

In two points the default is stricter than Docker's. Docker refuses AF_ALG and AF_VSOCK by comparing the family
(below 38, 39, above 40), and a filter compares all 64 bits of the register, while the kernel reads an int:
socket(1 << 32 | 38, ...) is "above 40" and opens AF_ALG. Here each range becomes comparisons of the low half.
And i386 has socketcall as well, whose arguments are in memory, where no filter looks: it is refused whole. Of the
other multiplexers, `ipc` has nothing that is refused under its own name, and x86 has no `syscall`; where socketcall is
the native ABI's (s390x, ppc64le), refusing it would take every socket from a C library that knows nothing else.
"""

from __future__ import annotations

import errno
import json
import os

from pyrun import boot
from pyrun.errors import UsageError
from pyrun.safe import is_number
from pyrun.spec import capabilities, config_file
from pyrun.spec.seccomp import notifies
from pyrun.spec.seccomp_check import FIELD, check, list_of, object_of, words_of

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyrun.spec.oci import Object, Seccomp, SyscallArgument, SyscallRule
    from pyrun.spec.seccomp_generate import Row, Table

# `uname -m` -> the name in Docker's conditions; the OCI name of a native architecture is SCMP_ARCH_ + upper case.
_DOCKER_NAMES = {
    "x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "armv7l": "arm", "armv6l": "arm", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loongarch64", "mips64": "mips64",
}  # fmt: skip
_HINT = "seccomp=FILE takes JSON as Docker or OCI has it; without it the default profile is used"
# Not EPERM, which is the default: a rule that says the same as the default is none, and libseccomp then adds to every
# rule for `socket` one that allows socketcall(SYS_SOCKET), whatever the family. The first rule for a call counts.
_NO_SOCKETCALL: SyscallRule = {"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
_FAMILY_MAX = 63  # linux/socket.h: AF_MAX is 46; what is above is EPERM instead of EAFNOSUPPORT


def default_profile(capabilities_mask: int) -> Seccomp:
    """Docker's default profile for this machine and a bounding set, as OCI `linux.seccomp`."""
    with open(boot.PACKAGE_DIR + "/spec/seccomp_default.json", encoding="ascii") as file:
        table: Table = json.load(file)
    profile: Seccomp = {
        "defaultAction": table["default"]["action"],
        "defaultErrnoRet": table["default"]["errno"],
    }
    if architectures := _family(table["architectures"]):
        profile["architectures"] = architectures
    rules: list[SyscallRule] = []
    profile["syscalls"] = rules
    for row in table["rules"]:
        if _holds(row, capabilities_mask, "needs", "unless"):
            rules += _low_half(_rule_of_table(row))
    if "SCMP_ARCH_X86" in architectures:
        for rule in rules:
            rule["names"] = [name for name in rule["names"] if name != "socketcall"]
        rules.insert(0, _NO_SOCKETCALL)
    return profile


def _low_half(rule: SyscallRule) -> list[SyscallRule]:
    """The rules that say of a socket's family, an int, what *rule* says of a whole register."""
    if rule["names"] != ["socket"] or len(rule.get("args", ())) != 1:
        return [rule]
    value = rule["args"][0]["value"]
    ranges = {
        "SCMP_CMP_LT": (0, value - 1),
        "SCMP_CMP_EQ": (value, value),
        "SCMP_CMP_GT": (value + 1, _FAMILY_MAX),
    }
    made: list[SyscallRule] = []
    for first, mask in _blocks(*ranges[rule["args"][0]["op"]]):
        condition: SyscallArgument = {
            "index": 0,
            "value": mask,
            "valueTwo": first,
            "op": "SCMP_CMP_MASKED_EQ",
        }
        made.append({**rule, "args": [condition]})
    return made


def _blocks(first: int, last: int) -> list[tuple[int, int]]:
    """A range of numbers as (number, mask of 32 bits), like the networks that cover a range of addresses."""
    blocks = []
    while first <= last:
        size = first & -first or 1 << 31
        while first + size - 1 > last:
            size >>= 1
        blocks.append((first, (1 << 32) - size))
        first += size
    return blocks


def load_profile(path: str, capabilities_mask: int) -> Seccomp:
    """`--security-opt seccomp=PATH`: a JSON file in Docker's or OCI's form -> OCI `linux.seccomp`.

    `builtin` is the default profile; `unconfined` and an empty object give {}, no filter.
    Raises UsageError in one line: no file, no JSON, or the faulty field and its value.
    """
    if path == "unconfined":
        return {}
    if path in ("", "builtin"):
        return default_profile(capabilities_mask)
    given = _read(path)
    try:
        profile = _resolve(given, capabilities_mask)
        if profile:
            check(profile)
        if notifies(profile):
            raise UsageError("SCMP_ACT_NOTIFY is for pyrun-oci: `pyrun run` has no agent that would answer")
    except UsageError as error:
        raise UsageError(
            f"seccomp profile {path}: {error.message.removeprefix(FIELD + '.')}", error.hint
        ) from None
    return profile


def _read(path: str) -> Object:
    name = f"seccomp profile {path}"
    try:
        with open(path, "rb") as file:
            given = config_file.parse(file.read(config_file.BYTES_MAX + 1), name)
    except OSError as error:
        raise UsageError(f"{name}: {os.strerror(error.errno or 0).lower()}", _HINT) from None
    except UsageError as error:
        raise UsageError(error.message, _HINT) from None
    if not isinstance(given, dict):
        raise UsageError(f"seccomp profile {path}: not a JSON object", _HINT)
    return given


# ── Docker's form ──────────────────────────────────────────────────────────────────────────────────


def _resolve(given: Object, mask: int) -> Seccomp:
    """Decide conditions and archMap. Fields of OCI's form stay as they are, for check() to judge."""
    kept: Any = {
        key: value for key, value in given.items() if key not in ("archMap", "syscalls") and value is not None
    }
    profile: Seccomp = kept
    if not profile.get("defaultAction") and not given.get("syscalls"):
        return {}
    if given.get("archMap"):
        if given.get("architectures"):
            raise UsageError("architectures and archMap are both given", "give one of them")
        profile["architectures"] = _family(_arch_map(given["archMap"]))
    syscalls = list_of(given.get("syscalls") or [], "syscalls")
    profile["syscalls"] = [
        _rule_of_docker(rule, f"syscalls[{number}]")
        for number, rule in enumerate(syscalls)
        if _holds(
            object_of(rule, f"syscalls[{number}]"), mask, "includes", "excludes", f"syscalls[{number}]."
        )
    ]
    return profile


def _arch_map(entries: object) -> dict[str, list[str]]:
    made = {}
    for number, entry in enumerate(list_of(entries, "archMap")):
        entry = object_of(entry, f"archMap[{number}]")
        made[str(entry.get("architecture"))] = list_of(
            entry.get("subArchitectures") or [], "subArchitectures"
        )
    return made


def _family(families: dict[str, list[str]]) -> list[str]:
    """This machine's architecture and those whose programs it runs too; empty when the table lacks it."""
    native = f"SCMP_ARCH_{os.uname().machine.upper()}"
    return [native, *families[native]] if native in families else []


def _rule_of_docker(rule: Object, where: str) -> SyscallRule:
    if rule.get("name"):
        if rule.get("names"):
            raise UsageError(f"{where}: name and names are both given", "give one of them")
        rule = {**rule, "names": [rule["name"]]}
    kept: Any = {
        key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key) is not None
    }
    made: SyscallRule = kept
    return made


def _rule_of_table(row: Row) -> SyscallRule:
    """A rule of seccomp_default.json in OCI's form."""
    made: SyscallRule = {"names": " ".join(row["names"]).split(), "action": row["action"]}
    if "errno" in row:
        made["errnoRet"] = row["errno"]
    if "args" in row:
        made["args"] = [
            {"index": index, "value": value, "valueTwo": second, "op": operator}
            for index, operator, value, second in row["args"]
        ]
    return made


def _holds(rule: Mapping[str, object], mask: int, needs: str, unless: str, where: str = "") -> bool:
    """Whether a rule's conditions hold: every one of *needs*, none of *unless*."""
    words = rule.get(needs) or {}
    facts = _facts(object_of(words, where + needs), mask, where + needs)
    if not all(all(each) if key == "capabilities" else any(each) for key, each in facts.items()):
        return False
    words = rule.get(unless) or {}
    return not any(
        any(each) for each in _facts(object_of(words, where + unless), mask, where + unless).values()
    )


def _facts(condition: Object, mask: int, where: str) -> dict[str, list[bool]]:
    """Each kind of condition that is present, and which of its values are the case."""
    names = words_of(condition.get("caps") or condition.get("capabilities") or [], where)
    machines = words_of(condition.get("arches") or condition.get("machines") or [], where)
    kernel = condition.get("minKernel") or condition.get("kernel")
    system = os.uname()
    own = _DOCKER_NAMES.get(system.machine, system.machine)
    facts = {}
    if names:
        facts["capabilities"] = [bool(mask >> capabilities.NUMBERS.get(name, 63) & 1) for name in names]
    if machines:
        facts["machines"] = [name == own for name in machines]
    if kernel:
        facts["kernel"] = [_version(system.release, "uname") >= _version(kernel, f"{where}.minKernel")]
    return facts


def _version(text: object, where: str) -> tuple[int, int]:
    """`6.18.44-x` -> (6, 18)."""
    first, _, rest = str(text).partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not is_number(first) or not is_number(digits):
        raise UsageError(f"{where}: not a kernel version: {text!r:.100}", 'write it as "4.8"')
    return int(first), int(digits)

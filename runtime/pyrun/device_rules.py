"""Device rules: which nodes may be made and opened. cgroup v1 takes lines, cgroup v2 a small program.

The program is the kernel's BPF_PROG_TYPE_CGROUP_DEVICE: it gets the kind of access and the numbers, and
returns 1 or 0. Rules are tried from the last to the first, so that the last one that fits decides, as the
order of v1's writes does. Source: runtime-spec config-linux.md#allowed-device-list, cgroup-v1/devices.rst,
cgroup-v2.rst (device controller), man 2 bpf.
"""

from __future__ import annotations

import posix

from . import linux
from .errors import StageFailed
from .spec import defaults

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Resources

# (allow, "a" | "b" | "c", major or -1, minor or -1, "rwm")
Rule = tuple[bool, str, int, int, str]


def rules(resources: Resources) -> list[Rule]:
    """The config's rules, then those that every container gets (as runc appends them)."""
    found: list[Rule] = []
    given = resources.get("devices")
    for item in given if isinstance(given, list) else []:
        kind = item.get("type") or "a"
        access = item.get("access") or "rwm"
        major = -1 if item.get("major") is None else item["major"]
        minor = -1 if item.get("minor") is None else item["minor"]
        found.append((bool(item.get("allow")), kind, major, minor, access))
    return found + list(defaults.DEVICE_RULES_ALWAYS)


def _line(rule: Rule) -> str:
    _, kind, major, minor, access = rule
    if kind == "a":
        return "a"
    return f"{kind} {'*' if major < 0 else major}:{'*' if minor < 0 else minor} {access}"


def lines(resources: Resources) -> list[str]:
    """The rules as text, `allow c 1:3 rwm`: the arguments of a cgroup-devices operation.

    They begin with the last rule for all devices, which makes those before it void; without one nothing is allowed but
    what the others allow. What is allowed of one device is one rule, since v2's program asks each by itself.
    """
    found, everything = rules(resources), False
    for index in range(len(found) - 1, -1, -1):
        if found[index][1] == "a":
            found, everything = found[index + 1 :], found[index][0]
            break
    merged: dict[tuple[str, int, int], str] = {}
    for allow, kind, major, minor, access in found:
        if allow and not everything:
            place = (kind, major, minor)
            merged[place] = together(merged.pop(place, access), access)
        elif not allow and (everything or any(_may_meet(place, kind, major) for place in merged)):
            denying = composed(found, everything=everything)
            break
    else:  # nothing is denied of what is allowed
        denying = [(True, *place, access) for place, access in merged.items()]
    texts = [f"{'allow' if rule[0] else 'deny'} {_line(rule)}" for rule in denying]
    return ["allow a" if everything else "deny a", *texts]


def _may_meet(place: tuple[str, int, int], kind: str, major: int) -> bool:
    return place[0] == kind and (place[1] == major or -1 in (place[1], major))


def together(access: str, more: str) -> str:
    """Both accesses as one."""
    return access if access == more else "".join([letter for letter in "rwm" if letter in access + more])


def apply(directory: str, *texts: str) -> None:
    """Put the rules into force for a cgroup, whichever version it is. Raises StageFailed."""
    try:
        posix.stat(f"{directory}/devices.allow")
    except FileNotFoundError:
        return _attach(directory, *texts)
    return _write(directory, *texts)


def _write(directory: str, *texts: str) -> None:
    """cgroup v1: a line a write, in order. A fresh cgroup inherits its parent's list, usually everything."""
    files = {
        verdict: posix.open(f"{directory}/devices.{verdict}", posix.O_WRONLY | posix.O_CLOEXEC)
        for verdict in ("allow", "deny")
    }
    for text in texts:
        verdict, _, line = text.partition(" ")
        try:
            posix.write(files[verdict], line.encode())
        except OSError as error:
            raise StageFailed("cgroup", f"{verdict} devices {line!r} in {directory}", error.errno) from None
    for fd in files.values():
        posix.close(fd)


def _parse(text: str) -> Rule:
    verdict, kind, *rest = text.split(" ")
    if kind == "a":
        return (verdict == "allow", "a", -1, -1, "rwm")
    major, _, minor = rest[0].partition(":")
    device = (-1 if major == "*" else int(major), -1 if minor == "*" else int(minor))
    return (verdict == "allow", kind, *device, rest[1])


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """struct bpf_insn: opcode, registers, jump offset, constant; little endian, as are the machines we know."""
    return (
        bytes((code, src << 4 | dst))
        + offset.to_bytes(2, "little", signed=True)
        + immediate.to_bytes(4, "little", signed=True)
    )


# eBPF opcodes (linux/bpf.h, linux/bpf_common.h)
_LOAD_WORD, _MOVE, _MOVE_IMMEDIATE, _AND, _SHIFT_RIGHT = 0x61, 0xBC, 0xB4, 0x54, 0x74
_JUMP_EQUAL, _JUMP_UNEQUAL, _EXIT = 0x16, 0x56, 0x95
_TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*


def program(texts: list[str] | tuple[str, ...]) -> bytes:
    """eBPF instructions: r2 kind of device, r3 access wanted, r4 major, r5 minor; r0 the verdict."""
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),  # access_type: type in the low half, access in the high half
        _instruction(_MOVE, 3, 2),
        _instruction(_AND, 2, immediate=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, immediate=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for allow, kind, major, minor, access in [_parse(text) for text in reversed(texts)]:
        tests: list[bytes] = []
        wanted = sum(_ACCESS[letter] for letter in set(access))
        # each test is followed by a jump over the rest of the rule; offsets are filled in below
        if kind != "a":
            tests.append(_instruction(_JUMP_UNEQUAL, 2, immediate=_TYPES[kind]))
        if wanted != 7:
            # an access that asks for more than the rule gives (or, when denying, for none of it) does not fit
            tests += [
                _instruction(_MOVE, 1, 3),
                _instruction(_AND, 1, immediate=~wanted if allow else wanted),
            ]
            tests.append(_instruction(_JUMP_UNEQUAL if allow else _JUMP_EQUAL, 1, immediate=0))
        for register, number in ((4, major), (5, minor)):
            if number >= 0:
                tests.append(_instruction(_JUMP_UNEQUAL, register, immediate=number))
        body = [*tests, _instruction(_MOVE_IMMEDIATE, 0, immediate=int(allow)), _instruction(_EXIT)]
        for index, word in enumerate(body):
            if word[0] in (_JUMP_EQUAL, _JUMP_UNEQUAL):
                body[index] = word[:2] + (len(body) - index - 1).to_bytes(2, "little") + word[4:]
        code += body
        if kind == "a":  # it fits everything: nothing after it is reached, and the kernel refuses such code
            return b"".join(code)
    return b"".join([*code, _instruction(_MOVE_IMMEDIATE, 0, immediate=0), _instruction(_EXIT)])


_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_CGROUP_DEVICE_PROGRAM, ATTACH_TYPE, _ALLOW_MULTI = 15, 6, 2
PROGRAM_NAME = b"pyrun_devices"  # by which an update finds it
_LICENCE = b"Apache-2.0\0"


def _attach(directory: str, *texts: str) -> None:
    """Load the program and tie it to the cgroup; it goes with the cgroup. Raises StageFailed."""
    code = program(texts)
    buffers = (linux.ffi.from_buffer(code), linux.ffi.from_buffer(_LICENCE))
    address = [int(linux.ffi.cast("uintptr_t", buffer)) for buffer in buffers]
    load = _CGROUP_DEVICE_PROGRAM.to_bytes(4, "little") + (len(code) // 8).to_bytes(4, "little")
    load += address[0].to_bytes(8, "little") + address[1].to_bytes(8, "little") + bytes(24)
    load += PROGRAM_NAME.ljust(16, b"\0") + bytes(56)
    try:
        program_fd = linux.bpf(_BPF_PROG_LOAD, load)
        group_fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        words = (group_fd, program_fd, ATTACH_TYPE, _ALLOW_MULTI)
        linux.bpf(_BPF_PROG_ATTACH, b"".join([word.to_bytes(4, "little") for word in words]) + bytes(16))
    except OSError as error:
        raise StageFailed("cgroup", f"restrict devices of {directory}", error.errno) from None
    posix.close(group_fd)
    posix.close(program_fd)


# ── what the last rule of each kind denies ─────────────────────────────────────────────────────────


# Rare: rules among which some deny. Then it matters which came before which: of one kind of access to one device the
# last rule that fits decides, as with v1's lists. Two things v2's program, which asks a rule by itself about all that
# is wanted at once, would get wrong: `allow r` and `allow w` make a rule `rw`, and what an allow takes back of a
# denial is no longer in the denial. Beyond v1, which ignores it: a denial may take one device out of what is allowed
# for all of a kind. Source: cgroup-v1/devices.rst; Linux security/device_cgroup.c.


def composed(found: list[Rule], *, everything: bool) -> list[Rule]:
    """*found* as rules that come to the same. everything: it follows a rule that allows every device."""
    kept: list[Rule] = []
    for rule in found:
        kept = _allowed(kept, rule) if rule[0] else [*[each for each in kept if each != rule], rule]
    return [rule for index, rule in enumerate(kept) if not everything or _says_something(kept[:index], rule)]


def _says_something(before: list[Rule], rule: Rule) -> bool:
    """Where everything is allowed: whether it denies, or takes back some of a denial."""
    return not rule[0] or any(
        not each[0] and _overlap(each, rule) and set(each[4]) & set(rule[4]) for each in before
    )


def _allowed(kept: list[Rule], rule: Rule) -> list[Rule]:
    """*kept* and then *rule*, which takes back what it covers, with what was allowed of the same device before it."""
    access, denied = set(rule[4]), set()
    left: list[Rule] = []
    for each in reversed(kept):
        own = set(each[4])
        if not each[0]:
            if _covers(rule, each):
                own -= set(rule[4])
            if _overlap(each, rule):
                denied |= own
        elif each[1:4] == rule[1:4]:
            access |= own - denied
            own -= access
        if own:
            left.append((*each[:4], _text(own)))
    return [*reversed(left), (*rule[:4], _text(access))]


def _text(access: set[str]) -> str:
    return "".join([letter for letter in "rwm" if letter in access])


def _overlap(one: Rule, other: Rule) -> bool:
    """Whether there are devices that both mean."""
    numbers = zip(one[2:4], other[2:4], strict=True)
    return one[1] == other[1] and all(-1 in pair or pair[0] == pair[1] for pair in numbers)


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether *wide* means every device that *narrow* does."""
    numbers = zip(wide[2:4], narrow[2:4], strict=True)
    return wide[1] == narrow[1] and all(number in (-1, other) for number, other in numbers)

"""Seccomp: what the compiled programs answer, executed by a small BPF interpreter for several architectures."""

from __future__ import annotations

import errno
import os
import struct
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.spec import seccomp_compile
from pyrun.spec.capabilities import ALL, DEFAULT
from pyrun.spec.seccomp_profile import default_profile

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
X86_64, I386, X32_BIT = 0xC000003E, 0x40000003, 1 << 30


@pytest.fixture
def only_x86_64() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    try:
        seccomp_compile.version()
    except PyrunError as error:
        pytest.skip(error.message)


def minimal(**more: object) -> dict[str, Any]:
    rule = {"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule], **more}


def run(program: bytes, arch: int, number: int, *args: int) -> int:
    """Execute the program as the kernel would: what it returns for one system call."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *args, *([0] * (6 - len(args))))
    code = list(struct.iter_unpack("=HBBI", program))
    at = value = 0
    for _ in range(len(code)):
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == 0x06:
            return operand
        if operation == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
        elif operation == 0x54:
            value &= operand
        elif operation == 0x05:
            at += operand
        else:
            holds = {
                0x15: value == operand,
                0x25: value > operand,
                0x35: value >= operand,
                0x45: value & operand,
            }
            at += if_true if holds[operation] else if_false
    raise AssertionError("the program does not end")


@pytest.mark.usefixtures("only_x86_64")
def test_the_default_program_for_three_architectures() -> None:
    program = seccomp_compile.compile_profile(default_profile(DEFAULT))
    for arch, base, getpid, unshare, keyctl in (
        (X86_64, 0, 39, 272, 250),
        (X86_64, X32_BIT, 39, 272, 250),
        (I386, 0, 20, 310, 288),
    ):
        assert run(program, arch, base + getpid) == ALLOW
        assert run(program, arch, base + unshare) == EPERM
        assert run(program, arch, base + keyctl) == EPERM
        assert run(program, arch, base + 2000) == ENOSYS
        assert run(program, arch, base + 435) == ENOSYS  # clone3
    assert run(program, X86_64, 56, 0x7E020000) == EPERM
    assert run(program, X86_64, 56, 0x0011) == ALLOW
    assert run(program, 0xC00000B7, 0) == 0  # another machine's: the thread is killed


@pytest.mark.usefixtures("only_x86_64")
def test_the_program_fits_and_starts_with_the_newer_calls() -> None:
    program = seccomp_compile.compile_profile(default_profile(ALL))
    assert len(program) // 8 < 2000
    highest = struct.unpack_from("=HBBI", program, 3 * 8)[3]
    assert highest >= 435
    assert run(program, X86_64, highest + 1) == ENOSYS
    assert run(program, X86_64, X32_BIT - 1) == ENOSYS


@pytest.mark.usefixtures("only_x86_64")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ENOSYS),
        ({"defaultErrnoRet": 13}, ENOSYS),
        ({"defaultErrnoRet": 38}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_KILL_PROCESS"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_TRAP"}, ENOSYS),
        ({"defaultAction": "SCMP_ACT_LOG"}, 0x7FFC0000),
        ({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 7}, 0x7FF00007),
        ({"syscalls": []}, EPERM),
    ],
)
def test_newer_calls_by_default_action(change: dict[str, object], expected: int) -> None:
    program = seccomp_compile.compile_profile({**minimal(), **change})
    assert run(program, X86_64, 9999) == expected


@pytest.mark.usefixtures("only_x86_64")
def test_a_default_that_allows_is_left_alone() -> None:
    denied = {"names": ["getpid", "no_such_call"], "action": "SCMP_ACT_ERRNO"}
    program = seccomp_compile.compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [denied]})
    assert [run(program, X86_64, number) for number in (39, 40, 9999)] == [EPERM, ALLOW, ALLOW]
    assert run(seccomp_compile.compile_profile({}), X86_64, 39) == ALLOW


@pytest.mark.usefixtures("only_x86_64")
@pytest.mark.parametrize(
    ("args", "given", "expected"),
    [
        ([(0, "NE", 5)], (5,), EPERM), ([(0, "NE", 5)], (6,), ALLOW),
        ([(0, "LT", 5)], (5,), EPERM), ([(0, "LE", 5)], (5,), ALLOW),
        ([(0, "GE", 1 << 40)], ((1 << 40) - 1,), EPERM), ([(0, "GT", 1 << 40)], ((1 << 40) + 1,), ALLOW),
        ([(0, "EQ", 1), (1, "EQ", 2)], (1, 2), ALLOW), ([(0, "EQ", 1), (1, "EQ", 2)], (1, 3), EPERM),
        ([(0, "EQ", 1), (0, "EQ", 2)], (2,), ALLOW), ([(0, "EQ", 1), (0, "EQ", 2)], (3,), EPERM),
    ],
)  # fmt: skip
def test_arguments(args: list[tuple[int, str, int]], given: tuple[int, ...], expected: int) -> None:
    """Of different arguments all must fit, of one argument's comparisons any: as runc does."""
    conditions = [{"index": index, "op": f"SCMP_CMP_{op}", "value": value} for index, op, value in args]
    rule = {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "args": conditions}
    assert run(seccomp_compile.compile_profile(minimal(syscalls=[rule])), X86_64, 39, *given) == expected


@pytest.mark.usefixtures("only_x86_64")
def test_masked_equal_takes_the_mask_first() -> None:
    condition = {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0xF0, "valueTwo": 0x30}
    rule = {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "args": [condition]}
    program = seccomp_compile.compile_profile(minimal(syscalls=[rule]))
    assert run(program, X86_64, 39, 0x3F) == ALLOW
    assert run(program, X86_64, 39, 0x70) == EPERM


@pytest.mark.usefixtures("only_x86_64")
def test_of_contradicting_rules_the_first_wins() -> None:
    """As libseccomp has it, and so runc."""
    allow = {"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}
    deny = {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    for rules, expected in (([allow, deny], ALLOW), ([deny, allow], 0x50005)):
        assert run(seccomp_compile.compile_profile(minimal(syscalls=rules)), X86_64, 39) == expected

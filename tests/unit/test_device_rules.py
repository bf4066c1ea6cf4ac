"""Device rules as cgroup v1 lines and as the eBPF program of cgroup v2, run by a small interpreter of its own."""

from __future__ import annotations

import struct

import pytest

from pyrun import device_rules
from pyrun.spec import defaults

DOCKER = {
    "devices": [
        {
            "allow": allow,
            "type": kind,
            "access": access,
            "major": None if major < 0 else major,
            "minor": None if minor < 0 else minor,
        }
        for allow, kind, major, minor, access in defaults.DEVICE_RULES
    ]
}

# Docker's rules, and those that are always there, as cgroup v1 takes them after `a` in devices.deny, and what they
# come to: devices.allow.
DEVICE_ALLOW_LINES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
    "c 136:* rwm",
)


def decide(code: bytes, kind: str, access: str, major: int, minor: int) -> int:
    """Execute the program as the kernel would: 1 allows."""
    letters = {"m": 1, "r": 2, "w": 4}
    context = [{"b": 1, "c": 2}[kind] | sum(letters[c] for c in access) << 16, major, minor]
    registers = [0] * 11
    at = 0
    for _ in range(10_000):
        opcode, regs, offset, immediate = struct.unpack_from("<BBhi", code, 8 * at)
        dst, src = regs & 15, regs >> 4
        at += 1
        match opcode:
            case 0x61:
                registers[dst] = context[offset // 4]
            case 0xBC:
                registers[dst] = registers[src]
            case 0xB4:
                registers[dst] = immediate
            case 0x54:
                registers[dst] &= immediate & 0xFFFFFFFF
            case 0x74:
                registers[dst] >>= immediate
            case 0x56:
                at += offset if registers[dst] != immediate & 0xFFFFFFFF else 0
            case 0x16:
                at += offset if registers[dst] == immediate & 0xFFFFFFFF else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"opcode {opcode:#x}")
    raise AssertionError("the program does not end")


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        ("c", "rw", 1, 3, 1), ("c", "r", 1, 9, 1), ("c", "w", 136, 7, 1), ("c", "rwm", 5, 2, 1), ("c", "m", 99, 1, 1),
        ("b", "m", 8, 0, 1), ("b", "r", 8, 0, 0), ("b", "w", 259, 1, 0), ("c", "rw", 1, 1, 0), ("c", "r", 10, 229, 0),
        ("c", "rw", 10, 200, 1), ("b", "rm", 8, 0, 0), ("c", "mr", 99, 1, 0),
    ],
)  # fmt: skip
def test_dockers_rules(kind: str, access: str, major: int, minor: int, allowed: int) -> None:
    code = device_rules.program(device_rules.lines(DOCKER))
    assert decide(code, kind, access, major, minor) == allowed


def test_privileged_allows_everything() -> None:
    code = device_rules.program(
        device_rules.lines({"devices": [{"allow": True, "type": "a", "access": "rwm"}]})
    )
    assert decide(code, "b", "rw", 8, 0) == 1


def test_a_later_denial_wins_and_may_be_partial() -> None:
    code = device_rules.program(["allow a *:* rwm", "deny b 8:0 w"])
    assert decide(code, "b", "r", 8, 0) == 1
    assert decide(code, "b", "w", 8, 0) == 0
    assert decide(code, "b", "rw", 8, 0) == 0


def test_the_lines_come_to_dockers_list() -> None:
    texts = device_rules.lines(DOCKER)
    assert texts[0] == "deny a"
    assert len(set(texts)) == len(texts)
    allowed = {text.partition(" ")[2] for text in texts if text.startswith("allow")}
    assert allowed == set(DEVICE_ALLOW_LINES)


def test_device_lines_are_what_the_rules_come_to() -> None:
    def line(rule: tuple[bool, str, int, int, str]) -> str:
        _, kind, major, minor, access = rule
        return f"{kind} {'*' if major < 0 else major}:{'*' if minor < 0 else minor} {access}"

    allowed = {line(rule) for rule in defaults.DEVICE_RULES + defaults.DEVICE_RULES_ALWAYS if rule[0]}
    assert allowed == set(DEVICE_ALLOW_LINES)
    assert len(DEVICE_ALLOW_LINES) == len(allowed)


# ── rules that follow each other ───────────────────────────────────────────────────────────────────

ALL = {"allow": True, "access": "rwm"}


def rule(text: str) -> dict[str, object]:
    """`allow c 1:3 rw` as an entry of the config."""
    verdict, kind, numbers, access = text.split()
    major, minor = (None if each == "*" else int(each) for each in numbers.split(":"))
    return {"allow": verdict == "allow", "type": kind, "major": major, "minor": minor, "access": access}


@pytest.mark.parametrize(
    ("first", "texts", "access", "allowed"),
    [
        ({}, ["allow c 10:229 r", "allow c 10:229 w"], "rw", 1),
        ({}, ["allow c 10:229 r", "allow c 10:229 w"], "rwm", 0),
        ({}, ["allow c 10:229 rw", "deny c 10:229 w"], "rw", 0),
        ({}, ["allow c 10:229 rw", "deny c 10:229 w"], "r", 1),
        ({}, ["allow c 10:229 rw", "deny c 10:229 w", "allow c 10:229 w"], "rw", 1),
        ({}, ["allow c 10:229 r", "deny c 10:229 r", "allow c 10:229 w"], "rw", 0),
        ({}, ["allow c *:* rw", "deny c 10:229 rw"], "r", 0),
        ({}, ["allow c *:* rw", "deny c 10:229 w", "allow c 10:229 w"], "rw", 1),
        ({}, ["allow c *:* r", "deny c 10:229 r", "allow c *:* w"], "r", 0),
        ({}, ["allow c *:* r", "deny c 10:229 r", "allow c *:* w"], "w", 1),
        ({}, ["allow c 10:229 r", "deny c *:* r", "allow c 10:229 w"], "rw", 0),
        ({}, ["deny c *:* rwm", "allow c 10:* rw"], "rw", 1),
        (ALL, [], "rwm", 1),
        (ALL, ["deny c 10:229 rwm"], "r", 0),
        (ALL, ["deny c 10:229 rwm", "allow c 10:229 r"], "r", 1),
        (ALL, ["deny c 10:229 rwm", "allow c 10:229 r"], "rw", 0),
        (ALL, ["deny c 10:229 rwm", "allow c 10:229 r", "allow c 10:229 w"], "rw", 1),
        (ALL, ["deny c 10:229 w", "allow c 10:229 w"], "rw", 1),
        (ALL, ["deny c 10:229 rw", "allow c *:* w"], "w", 1),
        (ALL, ["deny c 10:229 rw", "allow c *:* w"], "r", 0),
        (ALL, ["deny c 10:* rw", "allow b 10:229 rw"], "r", 0),
    ],
)  # fmt: skip
def test_the_last_rule_of_each_access_decides(
    first: dict[str, object], texts: list[str], access: str, allowed: int
) -> None:
    found = device_rules.lines({"devices": [*([first] if first else []), *map(rule, texts)]})
    assert decide(device_rules.program(found), "c", access, 10, 229) == allowed, found


def test_what_every_container_may_use_it_may_after_a_denial() -> None:
    """The rules that are always appended take it back; where nothing was denied there is nothing to take back."""
    found = device_rules.lines({"devices": [ALL, rule("deny c 1:3 rwm")]})
    assert found == ["allow a"]
    found = device_rules.lines({"devices": [ALL, rule("deny c 1:* rwm")]})
    assert (
        found[:2] == ["allow a", "deny c 1:* rw"]
        and "allow c 1:3 rwm" in found
        and "allow c 5:0 rwm" not in found
    )
    assert decide(device_rules.program(found), "c", "r", 1, 1) == 0
    assert decide(device_rules.program(found), "c", "rw", 1, 3) == 1
    assert device_rules.lines({"devices": [ALL]}) == ["allow a"]
    assert device_rules.lines({"devices": [ALL, rule("deny b 8:0 w")]}) == ["allow a", "deny b 8:0 w"]

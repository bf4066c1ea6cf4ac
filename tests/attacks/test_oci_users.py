"""Users, groups and capabilities that could be more than they say, by `pyrun-oci`.

Each attack returns what shows that it worked, nothing if it did not; see test_oci_links.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import hostile

VERBS = ("run", "create", "exec")

# What is taken out of the weakened builds.
USERS_LIKE_CRUN = (
    "engine/oci/exec_.py", r"if not is_number\(text\) or int\(text\) > ID_LIMIT.*?return int\(text\)",
    "return int('0' + ''.join(filter(str.isdigit, text))) % 2**32")  # fmt: skip
GROUPS_STAY = ("init_security.c", r"failure\(syscall\(SYS_setgroups, count, groups\)\)", "0")
GROUPS_STAY_TOO = ("init_command.c", r"\n    syscall\(SYS_setgroups, count, groups\);[^\n]*", "")
ANY_KIND_OF_FILE = ("store/distrusted.py", r"if kind != 0o100000:", "if False:")
WAITS_FOR_WRITERS = ("store/distrusted.py", r"posix\.O_RDONLY \| posix\.O_NONBLOCK", "posix.O_RDONLY")
NO_END = ("spec/users.py", r"FILE_SIZE_LIMIT_BYTES = 1 << 20", "FILE_SIZE_LIMIT_BYTES = 1 << 22")
PASSWD_ANYWHERE = ("store/distrusted.py", r"IN_ROOT = linux\.RESOLVE_IN_ROOT \| ", "IN_ROOT = ")
INHERITABLE_TOO = (
    "engine/oci/exec_.py",
    r"for name in sets:\n",
    'sets["inheritable"] = []\n    for name in sets:\n',
)


def status_of(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines() if ":" in line}


REFUSED = ("4294967296", "4294967295", "-1", "+1", " 1", "1 ", "1:", ":", ":1", "1:2:3", "1:-1", "bob", "1:x",
           "١", "1_0", "1\n0", "0x0", "1e3", "root", "2²", "1:4294967296")  # fmt: skip
ACCEPTED = {
    "0": "0 0",
    "1": "1 0",
    "1000": "1000 0",
    "1000:5": "1000 5",
    "4294967294": "4294967294 0",
    "0:7": "0 7",
}


def users_that_are_none(arena: Any) -> list[str]:
    """CVE-2016-3697, CVE-2024-40635, CVE-2026-30892, CVE-2026-46680: --user takes numbers, and nothing like them."""
    box = arena.box()
    (box.rootfs / "etc/passwd").write_text(
        "1000:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\nbob:x::\n4294967294:x:0:0::/:\n"
    )
    box.detach()
    for user, expected in ACCEPTED.items():
        shown = status_of(box.exec("cat", "/proc/self/status", options=["--user", user]))
        assert f"{shown['Uid'].split()[0]} {shown['Gid'].split()[0]}" == expected, (user, shown)
    wrong = []
    for user in REFUSED:
        done = box.call("exec", "--user", user, box.id, "cat", "/proc/self/status")
        assert "Traceback" not in done.err, done
        if done.status == 0:
            wrong.append(f"{user!r} is {status_of(done.out)['Uid']}")
    return wrong


def test_users_are_numbers(arena: Any) -> None:
    assert not users_that_are_none(arena)


def test_users_that_only_look_like_numbers(weak: Callable[..., Any]) -> None:
    assert any(each.startswith("'4294967296' is 0") for each in users_that_are_none(weak(USERS_LIKE_CRUN)))


@pytest.mark.parametrize("number", [-1, 1 << 32, (1 << 32) - 1, 1.0, "1", True])
@pytest.mark.parametrize("field", ["uid", "gid", "additionalGids"])
def test_users_of_a_config_are_numbers(arena: Any, field: str, number: object) -> None:
    box = arena.box()
    box.process["user"][field] = [number] if field == "additionalGids" else number
    assert f"process.user.{field}" in box.refuses("true")


def odd_passwd(arena: Any, kind: str) -> str:
    """CVE-2024-9676, CVE-2026-47262: what is read of it has an end, and is never waited for; a link of it stays inside.
    long: a line of it stands behind the most that is read of a passwd file."""
    box = arena.box()
    place = box.rootfs / "etc/passwd"
    place.unlink()
    if kind == "link":
        (arena.canary.directory / "passwd").write_text("root:x:0:0::/of-the-host:/bin/sh\n")
        place.symlink_to(arena.canary.directory / "passwd")
    elif kind == "long":
        place.write_text("#\n" * (1 << 19) + "root:x:0:0::/of-the-end:/bin/sh\n")
    else:
        hostile.odd_file(place, kind)
    try:
        home = arena.go(box, "create", "sh", "-c", "echo $HOME", timeout_s=3).out.strip()
    except subprocess.TimeoutExpired:
        return "waited for"
    return home if home.startswith("/of-the-") else ""


@pytest.mark.parametrize("kind", ["huge", "long", "fifo", "device", "link"])
def test_the_passwd_of_a_bundle_is_never_waited_for(arena: Any, kind: str) -> None:
    assert not odd_passwd(arena, kind)


@pytest.mark.parametrize(
    ("kind", "shown"), [("long", "/of-the-end"), ("fifo", "waited for"), ("link", "/of-the-host")]
)
def test_a_passwd_that_is_taken_as_it_is(weak: Callable[..., Any], kind: str, shown: str) -> None:
    assert odd_passwd(weak(ANY_KIND_OF_FILE, WAITS_FOR_WRITERS, NO_END, PASSWD_ANYWHERE), kind) == shown


def groups(arena: Any, verb: str) -> str:
    """CVE-2022-36109, CVE-2022-2989, CVE-2023-25173: the groups are those of the config, and none of the caller's."""
    box = arena.box()
    box.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 9]}
    caller = ("setpriv", "--groups=0,55")
    shown = arena.shown(box, verb, "cat", "/proc/self/status", prefix=caller)
    if verb == "exec":
        more = ("--user", "5:6", "--additional-gids", "11")
        added = box.exec("cat", "/proc/self/status", options=more, prefix=caller)
        has = status_of(added)["Groups"].split()
        assert "55" not in has and "11" in has, added
    return status_of(shown)["Groups"]


@pytest.mark.parametrize("verb", VERBS)
def test_groups_are_those_of_the_config(arena: Any, verb: str) -> None:
    assert groups(arena, verb).split() == ["7", "9"]


def test_groups_of_the_caller(weak: Callable[..., Any]) -> None:
    assert "55" in groups(weak(GROUPS_STAY, GROUPS_STAY_TOO), "create").split()


def inherited(arena: Any, verb: str, *options: str) -> dict[str, str]:
    """CVE-2016-8867, CVE-2018-10856, CVE-2022-24769 and its kin: capabilities that survive where none should."""
    box = arena.box()
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["noNewPrivileges"] = False
    held = status_of(arena.shown(box, verb, "cat", "/proc/self/status", options=options))
    return {name: held[name] for name in ("CapInh", "CapAmb", "CapEff", "CapPrm") if int(held[name], 16)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_user_inherits_no_capability(arena: Any, verb: str) -> None:
    assert not inherited(arena, verb)


def test_exec_cap_gives_nothing_inheritable(arena: Any) -> None:
    assert "CapInh" not in inherited(arena, "exec", "--cap", "CAP_KILL", "--cap", "CAP_SYS_ADMIN")


def test_exec_cap_as_it_was(weak: Callable[..., Any]) -> None:
    assert "CapInh" in inherited(weak(INHERITABLE_TOO), "exec", "--cap", "CAP_SYS_ADMIN")

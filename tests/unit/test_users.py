"""-u against the image's own files, the malformed and hostile ones included."""

from __future__ import annotations

import os
import posix
from pathlib import Path

import pytest

import hostile
from pyrun.errors import NotFound, UsageError
from pyrun.spec import users

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
1000:x:0:0:trap:/:/bin/sh
web:x:33:44:Web:/var/www:/bin/sh
bad:x::
worse:x:-1:0::
"""
GROUP = "root:x:0:\nwheel:x:10:root,web\nweb:x:44:\nlog:x:4:web\nodd:x:\n"


@pytest.fixture
def layer(tmp_path: Path) -> str:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return str(tmp_path)


def test_files_behind_links_are_found_while_files_are_renamed(layer: str) -> None:
    """Of a hundred looks at such a place the kernel takes back about three: such a file is not an empty one."""
    place = Path(layer)
    (place / "usr/etc").mkdir(parents=True)
    (place / "etc/passwd").rename(place / "usr/etc/passwd")
    (place / "etc/passwd").symlink_to("../usr/etc/passwd")
    with hostile.renaming(place):
        assert {users.read_below([layer], "etc/passwd") for _ in range(3000)} == {PASSWD.encode()}


def test_root_is_the_default(layer: str) -> None:
    found = users.resolve("", [], [layer])
    assert (found["uid"], found["gid"], found["home"], found["groups"]) == (0, 0, "/root", [0, 10])


def test_a_name_brings_its_groups_and_home(layer: str) -> None:
    found = users.resolve("web", [], [layer])
    assert (found["uid"], found["gid"], found["home"], found["groups"]) == (33, 44, "/var/www", [44, 10, 4])


def test_a_number_is_never_a_name(layer: str) -> None:
    """CVE-2016-3697: a user called 1000 who is root."""
    found = users.resolve("1000", [], [layer])
    assert (found["uid"], found["gid"]) == (1000, 0)


def test_a_group_given_replaces_the_users_own(layer: str) -> None:
    assert users.resolve("web:log", [], [layer])["gid"] == 4
    assert users.resolve("33:7", [], [layer])["gid"] == 7


@pytest.mark.parametrize("text", ["web", "33", ""])
def test_a_group_that_is_empty_was_not_given(layer: str, text: str) -> None:
    """`-u $UID:$GID` in bash, which knows no $GID."""
    assert users.resolve(f"{text}:", [], [layer]) == users.resolve(text, [], [layer])


def test_further_groups(layer: str) -> None:
    assert users.resolve("web:web", ["wheel", "77"], [layer])["groups"] == [44, 10, 77]


@pytest.mark.parametrize(
    "text", ["4294967296", "2147483648", "-1", "1:-", "33:-1", "0x1", "+1", "33:99999999999"]
)
def test_what_is_no_user(layer: str, text: str) -> None:
    with pytest.raises((UsageError, NotFound)):
        users.resolve(text, [], [layer])


@pytest.mark.parametrize("name", ["nobody-here", "bad", "worse"])
def test_unknown_and_malformed_lines(layer: str, name: str) -> None:
    with pytest.raises(NotFound, match=name):
        users.resolve(name, [], [layer])


def test_the_top_layer_wins(layer: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    top = tmp_path_factory.mktemp("top")
    (top / "etc").mkdir()
    (top / "etc/passwd").write_text("web:x:1:2::/new:\n")
    assert users.resolve("web", [], [str(top), layer])["uid"] == 1


def test_a_link_out_of_the_image_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    outside = tmp_path.parent / "outside-passwd"
    outside.write_text("evil:x:0:0::/:\n")
    (tmp_path / "etc/passwd").symlink_to(outside)
    with pytest.raises(NotFound):
        users.resolve("evil", [], [str(tmp_path)])


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    """CVE-2024-9676."""
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(NotFound):
        users.resolve("web", [], [str(tmp_path)])


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """CVE-2026-47262."""
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc/passwd").open("w") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="larger"):
        users.resolve("web", [], [str(tmp_path)])


@pytest.mark.parametrize(
    "passwd",
    [
        "",
        "root:x:0:0:root:/ro\0ot:/bin/sh\n",
        f"root:x:{'0' * 6000}1:0:root:/root:/bin/sh\n",
        f"root:x:{'1' * 6000}:0:root:/root:/bin/sh\n",
        f"root:x:0:{'1' * 6000}:root:/root:/bin/sh\n",
        "#" * (users.FILE_SIZE_LIMIT_BYTES + 1),
    ],
)
def test_no_passwd_file_keeps_a_process_out(layer: str, passwd: str) -> None:
    Path(layer, "etc/passwd").write_text(passwd)
    assert users.with_home(["A=1"], 0, layer) == ["A=1", "HOME=/"]


@pytest.mark.parametrize("text", ["1" * 6000, "0" * 6000 + "1:" + "9" * 6000])
def test_a_number_without_end_is_refused(layer: str, text: str) -> None:
    with pytest.raises(UsageError):
        users.resolve(text, [], [layer])


def test_what_is_no_file_is_not_opened(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may make a device there: to open one is to use it."""
    opened: list[str] = []
    real = posix.open
    monkeypatch.setattr(posix, "open", lambda path, *more: opened.append(str(path)) or real(path, *more))
    Path(layer, "etc/passwd").unlink()
    os.mkfifo(Path(layer, "etc/passwd"))
    assert users.with_home([], 0, layer) == ["HOME=/"]
    assert not [path for path in opened if path.endswith("passwd")]
    assert not [path for path in opened if path.startswith("/proc/self/fd/")]


SHOWN = "root:x:0:0::/elsewhere:/bin/sh\n"


@pytest.mark.parametrize(
    ("mounts", "home"),
    [
        ([("/etc/passwd", "bind", "{host}/passwd", "ro")], "/elsewhere"),
        ([("/etc//./passwd", "none", "{host}/passwd", "rbind")], "/elsewhere"),
        ([("/etc/passwd", "bind", "passwd", "bind")], "/elsewhere"),
        ([("/etc/passwd", "bind", "{host}/link", "bind")], "/elsewhere"),
        ([("/etc", "bind", "{host}", "rbind")], "/elsewhere"),
        ([("/etc", "tmpfs", "tmpfs", "mode=755")], "/"),
        ([("/etc", "tmpfs", "tmpfs", "tmpcopyup")], "/root"),
        ([("/etc", "tmpfs", "tmpfs", "mode=755"), ("/etc/passwd", "bind", "{host}/passwd", "bind")], "/elsewhere"),
        ([("/etc/passwd", "bind", "{host}/passwd", "bind"), ("/etc", "bind", "{host}/empty", "bind")], "/"),
        ([("/etc", "bind", "{host}/linked", "rbind")], "/"),
        ([("/etc/passwd", "bind", "{host}/nothing", "bind")], "/"),
        ([("/etc/passwd-", "bind", "{host}/passwd", "bind"), ("/data", "bind", "{host}", "bind")], "/root"),
        ([("/etc", "bind", "/etc", "bind", "remount", "ro")], "/root"),
    ],
)  # fmt: skip
def test_the_passwd_file_that_a_mount_shows(
    layer: str, tmp_path: Path, mounts: list[tuple[str, ...]], home: str
) -> None:
    """It is what the process is going to see; links inside a directory that is shown lead to nothing outside of it."""
    host = tmp_path / "host"
    for name in ("empty", "linked"):
        (host / name).mkdir(parents=True)
    (host / "passwd").write_text(SHOWN)
    (host / "link").symlink_to(host / "passwd")
    (host / "linked/passwd").symlink_to(host / "passwd")
    given = [
        {"destination": target, "type": kind, "source": source.format(host=host), "options": options}
        for target, kind, source, *options in mounts
    ]
    assert users.with_home([], 0, layer, given, str(host)) == [f"HOME={home}"]

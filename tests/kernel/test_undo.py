"""The undo list (csrc/undo.c, csrc/remove.c): each operation, twice, and what hostile trees try against it."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrun import undo as lists
from sandbox import in_child
from waiting import soon

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


class Undo:
    """Write a list and execute it."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary, self.file = binary, directory / "list"

    def __call__(self, *lines: str, end: str = "\n") -> tuple[int, str]:
        self.file.write_text("\n".join(lines) + end)
        return self.again()

    def again(self, *words: str, **options: object) -> tuple[int, str]:
        """The same list once more: the status, and what was said."""
        command = ["pyrun-undo", *(words or [str(self.file)])]
        done = subprocess.run(
            command, executable=self.binary, capture_output=True, text=True, timeout=100, **options
        )  # type: ignore[call-overload]
        assert done.stdout == ""
        return done.returncode, done.stderr


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def undo(binary: Path, tmp_path: Path) -> Undo:
    """`undo(*lines)`: its status and what it said."""
    return Undo(binary, tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to remove."""
    path = tmp_path / "tree"
    path.mkdir()
    return path


# ── the list itself ────────────────────────────────────────────────────────────────────────────────


def test_a_line_that_is_dropped(undo: Undo, tree: Path) -> None:
    """In place: the list is never empty, which would count as executed."""
    lines = [f"rmdir\t{tree / name}" for name in ("mine", "theirs", "last")]
    for line in lines:
        Path(line.split("\t")[1]).mkdir()
    undo.file.write_text("\n".join(["# made by a test", *lines]) + "\n")
    size = undo.file.stat().st_size
    with undo.file.open("r+b") as file:
        lists.drop(file.fileno(), [lines[1], "rmdir\t/elsewhere"])
    assert undo.file.stat().st_size == size
    assert undo.again() == (0, "") and [path.name for path in tree.iterdir()] == ["theirs"]


def test_operations_run_in_order_and_a_failure_does_not_end_them(undo: Undo, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").mkdir()
    (tmp_path / "c").write_text("")
    status, said = undo(
        "# what is gone counts as done", "", f"rmdir\t{tmp_path}/a/b", f"rmdir\t{tmp_path}/a",
        f"unlink\t{tmp_path}/a/b/x", f"unlink\t{tmp_path}",
        "fly\t/to/the/moon", "rmdir", "rmdir\trelative", "rmtree\t/", f"unlink\t{tmp_path}/c",
    )  # fmt: skip
    assert status == 1
    assert said.splitlines() == [
        f"pyrun: undo: unlink {tmp_path}: Is a directory", "pyrun: undo: not understood: fly",
        "pyrun: undo: not understood: rmdir", "pyrun: undo: not understood: rmdir",
        "pyrun: undo: not understood: rmtree",
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["list"]


def test_guards(undo: Undo, tmp_path: Path) -> None:
    (tmp_path / "name").write_text("mine\nmore\n")
    for name in "abcdefgh":
        (tmp_path / name).write_text("")
    assert undo(
        f"guard\t{tmp_path}/name\tmine", f"unlink\t{tmp_path}/a", "end",
        f"guard\t{tmp_path}/name\tmin", f"unlink\t{tmp_path}/b", "end", f"unlink\t{tmp_path}/c",
        f"guard\t{tmp_path}/name\tmine\n", f"guard\t{tmp_path}/nothing\tmine", f"unlink\t{tmp_path}/d",
        f"guard\t{tmp_path}/name\tmine", f"unlink\t{tmp_path}/e", "end", f"unlink\t{tmp_path}/f",
        f"guard\t{tmp_path}/name\tyours", "nonsense that is skipped", f"unlink\t{tmp_path}/g",
    ) == (0, "")  # fmt: skip
    left = [name for name in "abcdefgh" if (tmp_path / name).exists()]
    assert left == ["b", "d", "e", "g", "h"]


def test_unlink_if(undo: Undo, tmp_path: Path) -> None:
    for name, content in {"a": "mine", "b": "mine\n", "c": "minerva", "d": "", "e": "yours\nmine\n"}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "link").symlink_to("b")
    lines = [f"unlink-if\t{tmp_path}/{name}\tmine" for name in ("link", *"abcdef")]
    assert undo(*lines) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["c", "d", "e", "link", "list"]


def test_a_line_cut_off_is_not_executed(undo: Undo, tree: Path) -> None:
    (tree / "precious").write_text("")
    status, said = undo(f"rmtree\t{tree}", end="")
    assert (status, said) == (1, "pyrun: undo: the last line is incomplete\n")
    assert (tree / "precious").exists()


def test_the_list_removes_its_own_directory(undo: Undo, tree: Path) -> None:
    undo.file = tree / "undo"
    assert undo(f"rmtree\t{tree}") == (0, "")
    assert not tree.exists()
    assert undo.again() == (0, ""), "a list that is gone is done"


def test_a_locked_list_is_somebody_elses(undo: Undo, tree: Path) -> None:
    undo.file.write_text(f"rmdir\t{tree}\n")
    with open(undo.file) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert undo.again() == (75, "")
        assert tree.exists()
        number = file.fileno()  # our own lock: by descriptor
        assert undo.again(f"fd={number}", pass_fds=[number]) == (0, "")
    assert not tree.exists()


def test_a_list_in_memory(undo: Undo, tree: Path) -> None:
    number = os.memfd_create("undo")  # never had a name: not the same as one that lost it
    os.write(number, f"rmdir\t{tree}\n".encode())
    assert undo.again(f"fd={number}", pass_fds=[number]) == (0, "")
    os.close(number)
    assert not tree.exists()


def test_usage(undo: Undo) -> None:
    assert undo.again("a", "b")[0] == 64


# ── trees ──────────────────────────────────────────────────────────────────────────────────────────


def remove(undo: Undo, tree: Path) -> None:
    assert undo(f"rmtree\t{tree}") == (0, "")
    assert not tree.exists()
    assert undo.again() == (0, "")


def test_a_tree_with_everything(undo: Undo, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/file").write_text("x")
    os.mkfifo(tree / "a/fifo")
    os.mknod(tree / "a/whiteout", 0o20000)
    for place in (tree, tree / "a", tree / "a/b"):
        (place / "link").symlink_to(outside)
        (place / "up").symlink_to("..")
    os.chmod(tree / "a/b", 0)
    os.chmod(tree / "a", 0)
    remove(undo, tree)
    assert os.listdir(outside) == ["precious"]


def test_several_remove_one_tree_at_once(undo: Undo, tree: Path) -> None:
    """As `rm` and a container's own undo list may: nobody minds what another has removed already."""
    for number in range(20):
        for path in (tree / "a/b/c/d", *(tree / f"{name}/e/f" for name in range(20))):
            path.mkdir(parents=True)
            (path / "file").touch()
        lists = [tree.with_name(f"list{each}") for each in range(6)]
        for each in lists:
            each.write_text(f"rmtree\t{tree}\n")
        running = [subprocess.Popen(["pyrun-undo", str(each)], executable=undo.binary, stderr=subprocess.PIPE)
                   for each in lists]  # fmt: skip
        assert [process.communicate(timeout=30)[1] for process in running] == [b""] * 6, number
        assert not tree.exists()


def test_the_tree_is_a_link_itself(undo: Undo, tree: Path, tmp_path: Path) -> None:
    (tree / "precious").write_text("")
    (tmp_path / "link").symlink_to(tree)
    assert undo(f"rmtree\t{tmp_path}/link")[0] == 1
    assert (tree / "precious").exists()


def test_names_of_our_own(undo: Undo, tree: Path) -> None:
    for number in ("0", "00", "1", "2x", "4", "18446744073709551615", "99999999999999999999999999"):
        (tree / f".pyrun-remove.{number}/x/y").mkdir(parents=True)
    (tree / ".pyrun-remove.").write_text("")
    (tree / ".pyrun-remove.3").write_text("")
    (tree / ".pyrun-remove.01").write_text("")
    (tree / ".pyrun-remove.5").symlink_to("/")
    for number in range(20):
        (tree / f"d{number}/x/y").mkdir(parents=True)
        (tree / f"d{number}/.pyrun-remove.{number}/x").mkdir(parents=True)
    remove(undo, tree)


def test_a_tree_deeper_than_any_path(undo: Undo, tree: Path) -> None:
    here = os.open(tree, os.O_PATH)
    for _ in range(3000):
        os.mkdir("deep" * 20, dir_fd=here)
        below = os.open("deep" * 20, os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove(undo, tree)


@in_child
def test_a_hundred_thousand_files(undo: Undo, tree: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree], check=True)  # quicker to fill than a disk
    for directory in range(100):
        (tree / f"all/{directory}").mkdir(parents=True)
        here = os.open(tree / f"all/{directory}", os.O_RDONLY)
        for number in range(1000):
            os.mknod(f"file {number}", dir_fd=here)
        os.close(here)
    assert undo(f"rmtree\t{tree}/all") == (0, "")


@in_child
def test_mounts_inside_are_not_crossed(undo: Undo, tree: Path) -> None:
    (tree / "a/mounted").mkdir(parents=True)
    (tree / "a/file").write_text("")
    (tree / "b/c").mkdir(parents=True)
    (tree / "bound").write_text("")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "a/mounted"], check=True)
    subprocess.run(["mount", "--bind", "/etc/passwd", tree / "bound"], check=True)
    (tree / "a/mounted/precious").write_text("")
    status, said = undo(f"rmtree\t{tree}")
    assert status == 1
    assert re.fullmatch(f"pyrun: undo: rmtree {tree}: (Device or r|R)esource busy\n", said)
    mounted = [
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tree) in line
    ]
    assert len(mounted) == 2 and len(os.listdir(tree)) == 2
    assert all((Path(mount) / "precious").exists() for mount in mounted if not mount.endswith("bound"))
    lines = [f"umount\t{mount}" for mount in mounted]
    assert undo(*lines, *lines, f"umount\t{tree}/nothing", f"rmtree\t{tree}") == (0, "")
    assert not tree.exists()


@in_child
def test_what_is_mounted_over_one_another_goes_as_a_whole(undo: Undo, tree: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "below", tree], check=True)
    for name in ("first", "second"):
        subprocess.run(["mount", "-t", "tmpfs", name, tree], check=True)
    (tree / "link").symlink_to("/proc")
    assert undo(f"umount\t{tree}/link", f"umount\t{tree}") == (0, "")
    assert not os.path.ismount(tree)


@in_child
def test_what_an_overlay_leaves(undo: Undo, tree: Path) -> None:
    # overlay on overlay has no upper layer
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree], check=True)
    for name in ("lower/gone", "upper", "work", "merged"):
        (tree / f"c/{name}").mkdir(parents=True)
    (tree / "c/lower/file").write_text("")
    options = f"lowerdir={tree}/c/lower,upperdir={tree}/c/upper,workdir={tree}/c/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", tree / "c/merged"], check=True)
    (tree / "c/merged/file").unlink()
    (tree / "c/merged/gone").rmdir()
    (tree / "c/merged/gone").mkdir()
    assert os.stat(tree / "c/work/work").st_mode & 0o777 == 0
    assert undo(f"umount\t{tree}/c/merged", f"rmtree\t{tree}/c") == (0, "")


def test_a_directory_that_moves_while_it_is_removed(undo: Undo, tree: Path, tmp_path: Path) -> None:
    """Somebody swaps directories of the tree for links to a place outside, all the time."""
    outside = tmp_path / "outside"
    (outside / "deep/er").mkdir(parents=True)
    (outside / "deep/er/precious").write_text("")
    for number in range(200):
        (tree / f"{number}/deep/er").mkdir(parents=True)
    script = f"""
import os, itertools
for round in itertools.count():
    if round == 1:
        print("ready", flush=True)
    for number in range(200):
        try:
            name = "{tree}/%d" % number
            os.rename(name + "/deep", name + "/away")
            os.symlink("{outside}/deep", name + "/deep")
        except OSError:
            pass
        try:
            os.unlink(name + "/deep"); os.rename(name + "/away", name + "/deep")
        except OSError:
            pass
"""
    command = ["/usr/bin/python3", "-I", "-S", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout and attacker.stdout.readline() == b"ready\n"
        undo(f"rmtree\t{tree}")
        attacker.kill()
    assert (outside / "deep/er/precious").exists()
    remove(undo, tree)


@in_child
def test_rmdir_waits_for_what_is_busy_for_a_moment(undo: Undo, tree: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree], check=True)
    with subprocess.Popen(["sh", "-c", f"sleep 0.5; umount {tree}"]):
        assert undo(f"rmdir\t{tree}") == (0, "")
        assert not tree.exists()


# ── cgroups ────────────────────────────────────────────────────────────────────────────────────────


def hierarchies() -> list[Path]:
    """Places for a cgroup: v2 wherever it is mounted, and two of v1 if there."""
    found = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup2 " in line
    ]
    names = [Path(found[0])] if found else []
    return names + [
        path for path in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/freezer")) if path.exists()
    ]


@pytest.mark.parametrize("where", hierarchies(), ids=lambda path: path.name)
def test_cgroups_are_emptied_and_removed(undo: Undo, where: Path) -> None:
    top = where / f"pyrun-test-{os.getpid()}"
    (top / "a/b").mkdir(parents=True)
    (top / "c").mkdir()
    sleepers = []
    for group in (top, top / "a/b", top / "c"):
        sleepers.append(subprocess.Popen(["sleep", "100"]))
        (group / "cgroup.procs").write_text(str(sleepers[-1].pid))
    if (top / "freezer.state").exists():
        (top / "freezer.state").write_text("FROZEN")
    lines = f"kill-cgroup\t{top}", f"rmcgroup\t{top}"
    assert undo(*lines) == (0, "")
    assert [sleeper.wait(5) for sleeper in sleepers] == [-9] * 3
    assert not top.exists()
    assert undo.again() == (0, "")


@pytest.mark.parametrize("where", hierarchies(), ids=lambda path: path.name)
def test_cgroups_as_deep_as_somebody_likes(undo: Undo, where: Path) -> None:
    """With somebody at the bottom, and another beside."""
    top = where / f"pyrun-deep-{os.getpid()}"
    (top / "beside").mkdir(parents=True)
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        (top / "/".join(["d"] * 300)).mkdir(parents=True)
        (top / "/".join(["d"] * 300) / "cgroup.procs").write_text(str(sleeper.pid))
        assert undo(f"kill-cgroup\t{top}", f"rmcgroup\t{top}") == (0, "")
        assert sleeper.wait(5) == -9
    assert not top.exists()


@pytest.mark.parametrize("where", hierarchies()[:1], ids=lambda path: path.name)
def test_each_cgroup_is_waited_for_by_itself(undo: Undo, where: Path) -> None:
    """Not all of them together: somebody may have made fifty thousand."""
    top = where / f"pyrun-late-{os.getpid()}"
    (top / "a/b").mkdir(parents=True)
    with subprocess.Popen(["sleep", "1.2"]) as first, subprocess.Popen(["sleep", "2.4"]) as second:
        (top / "a/b/cgroup.procs").write_text(str(first.pid))
        (top / "a/cgroup.procs").write_text(str(second.pid))
        assert undo(f"rmcgroup\t{top}") == (0, "")
    assert not top.exists()


def test_a_fork_bomb_is_killed(undo: Undo) -> None:
    where = hierarchies()[-1]
    top = where / f"pyrun-bomb-{os.getpid()}"
    top.mkdir()
    bomb = (
        f"echo $$ > {top}/cgroup.procs; for i in 1 2 3 4 5; do (while true; do sleep 0.01; done) & done; wait"
    )
    shell = subprocess.Popen(["sh", "-c", bomb], stderr=subprocess.DEVNULL)
    assert soon(lambda: len((top / "cgroup.procs").read_text().split()) > 5)
    assert undo(f"kill-cgroup\t{top}", f"rmcgroup\t{top}") == (0, "")
    assert shell.wait(5) == -9
    assert not top.exists()


# ── netlink ────────────────────────────────────────────────────────────────────────────────────────


def message(kind: int, flags: int, payload: bytes, sequence: int = 1) -> bytes:
    """nlmsghdr and payload, padded."""
    header = struct.pack("=IHHII", 16 + len(payload), kind, flags | 1, sequence, 0)
    return header + payload + bytes(-len(payload) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """nlattr."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


ACK, DELLINK = 4, 17


def delete_link(name: str, flags: int = ACK) -> bytes:
    """RTM_DELLINK by name."""
    return message(DELLINK, flags, bytes(16) + attribute(3, name.encode() + b"\0"))


def links() -> list[str]:
    return re.findall(
        r"^\d+: (\w+)", subprocess.run(["ip", "link"], capture_output=True, text=True).stdout, re.MULTILINE
    )


@in_child
def test_route_messages(undo: Undo) -> None:
    for name in ("aa", "bb", "cc"):
        subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    assert undo(f"netlink\t0\t{(delete_link('aa') + delete_link('bb')).hex()}") == (0, "")
    assert {"cc", "ccp"} <= set(links()) and not {"aa", "aap", "bb", "bbp"} & set(links())
    assert undo.again() == (0, "")  # ENODEV twice
    assert undo(f"netlink\t0\t{delete_link('cc', 0).hex()}") == (0, "")  # without an answer
    assert not {"cc", "ccp"} & set(links())
    status, said = undo(f"netlink\t0\t{(delete_link('lo') + delete_link('nothing')).hex()}")
    assert status == 1
    assert re.fullmatch("pyrun: undo: netlink 0: .*supported\n", said)
    for bad in ("0\tabc", "0\tzz", "0\tffffffff", "0\t", f"99\t{delete_link('x').hex()}"):
        assert undo(f"netlink\t{bad}")[0] == 1, bad


def batch(*inner: bytes) -> bytes:
    """NFNL_MSG_BATCH_BEGIN ... END, for nftables (subsystem 10)."""
    around = b"\0\0\0\x0a"
    return message(0x10, 0, around) + b"".join(inner) + message(0x11, 0, around, 9)


def delete_table(name: str, sequence: int) -> bytes:
    """NFT_MSG_DELTABLE, family inet."""
    return message(10 << 8 | 2, ACK, b"\x01\0\0\0" + attribute(1, name.encode() + b"\0"), sequence)


@in_child
def test_nftables_batches(undo: Undo) -> None:
    def tables() -> str:
        return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout

    for name in ("t1", "t2", "t3"):
        subprocess.run(["nft", "add", "table", "inet", name], check=True)
    assert undo(f"netlink\t12\t{batch(delete_table('t1', 2), delete_table('t2', 3)).hex()}") == (0, "")
    assert tables() == "table inet t3\n"
    assert undo.again() == (0, "")
    chain_without_table = batch(message(10 << 8 | 3, ACK, bytes([1, 0, 0, 0]))).hex()
    status, said = undo(f"netlink\t12\t{chain_without_table}")
    assert status == 1 and "netlink 12" in said
    assert tables() == "table inet t3\n"


# ── noted processes ────────────────────────────────────────────────────────────────────────────────


def _start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


def test_a_noted_process_ends(undo: Undo, tmp_path: Path) -> None:
    """Only the very process that was noted: a pid alone may have become somebody else's."""
    note = tmp_path / "note"
    with subprocess.Popen(["sleep", "100"]) as sleeper:
        try:
            later = int(_start_time(sleeper.pid)) + 1
            for text in (f"{sleeper.pid} {later}\n", f"{sleeper.pid}\n", "", "x y\n", "-1 5\n"):
                note.write_text(text)
                assert undo(f"kill-noted\t{note}") == (0, "")
            assert sleeper.poll() is None
            note.write_text(f"{sleeper.pid} {_start_time(sleeper.pid)}\n")
            assert undo(f"kill-noted\t{note}", f"kill-noted\t{note}") == (0, "")
            assert sleeper.wait(10) == -9
        finally:
            sleeper.kill()
    assert undo(f"kill-noted\t{note}", f"kill-noted\t{tmp_path}/nothing") == (0, "")

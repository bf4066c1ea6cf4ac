"""Words that could mean more than they say: users, ids, names with newlines, sysctls, what an image says of itself.

Numbers, image data in control fields, ids. CVE-2016-3697, CVE-2026-46680,
CVE-2024-40635, CVE-2026-30892, CVE-2024-9676, CVE-2026-47262, CVE-2022-4318, CVE-2022-0811, CVE-2026-53488.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hostile
from command import Pyrun

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n+1:x:0:0::/:/bin/sh\n0x10:x:0:0::/:/bin/sh\nbob:x::\n"
    "dave:x:-1:0::/:/bin/sh\nbig:x:4294967296:0::/:/bin/sh\nok:x:1234:4321::/home/ok:/bin/sh\n"
    "spaced:x: 0: 0::/:/bin/sh\n"
)
GROUP = "root:x:0:\nok:x:4321:\nextra:x:77:ok\n1000:x:0:\nnone:x::ok\nminus:x:-1:ok\n"


@pytest.fixture
def users(pyrun: Pyrun) -> str:
    def change(root: Path) -> None:
        (root / "etc/passwd").write_text(PASSWD)
        (root / "etc/group").write_text(GROUP)

    return hostile.put_image(pyrun, "users", change)


ACCEPTED = {
    "1000": "1000 0 0", "1": "1 0 0", "0": "0 0 0", "1000:1000": "1000 1000 1000", "ok": "1234 4321 77,4321",
    "1234": "1234 4321 77,4321", "7:ok": "7 4321 4321", "2147483647": "2147483647 0 0", "00": "0 0 0",
    "1:": "1 0 0", ":": "0 0 0",
}  # fmt: skip
REFUSED = ("4294967296", "4294967295", "2147483648", "-1", "+1", " 1", "1 ", "1:2:3", "1:-1",
           "bob", "dave", "big", "spaced", "nobody-here", "1:4294967296", "1:none", "1:minus", "\u0661", "1_0", "1\n0",
           "ok\nroot", "1e3")  # fmt: skip


def identity(text: str) -> str:
    """`uid gid groups` of `cat /proc/self/status`."""
    rows = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return f"{rows['Uid'].split()[0]} {rows['Gid'].split()[0]} {','.join(rows['Groups'].split())}"


@pytest.mark.parametrize("user", list(ACCEPTED))
def test_users_that_are_what_they_say(pyrun: Pyrun, users: str, user: str) -> None:
    assert (
        identity(pyrun.ok("run", "--rm", "--net=none", "-u", user, users, "cat", "/proc/self/status"))
        == ACCEPTED[user]
    )


def test_users_of_exec_and_of_the_image(pyrun: Pyrun, users: str) -> None:
    pyrun.ok("run", "-d", "--name=victim", "--net=none", users, "sleep", "100")
    for user, expected in ACCEPTED.items():
        assert identity(pyrun.ok("exec", "-u", user, "victim", "cat", "/proc/self/status")) == expected, user
    for user in REFUSED:
        done = pyrun("exec", "-u", user, "victim", "true")
        assert done.returncode in (125, 126) and done.stderr.startswith("pyrun: "), done
    image = (
        pyrun.root / "images" / (pyrun.root / "refs/docker.io%2Flibrary%2Fusers%3Alatest").read_text().strip()
    )
    for user in ("1000", "-1", "4294967296"):
        record = json.loads((image / "image.json").read_text())
        record["config"]["User"] = user
        (image / "image.json").write_text(json.dumps(record))
        if user in ACCEPTED:
            assert (
                identity(pyrun.ok("run", "--rm", "--net=none", users, "cat", "/proc/self/status"))
                == ACCEPTED[user]
            )
        else:
            pyrun.fails(125, "run", "--rm", "--net=none", users, "true")


@pytest.mark.parametrize("user", REFUSED)
def test_users_that_are_not(pyrun: Pyrun, users: str, user: str) -> None:
    before = hostile.stored(pyrun)
    message = pyrun.fails(125, "run", "--rm", "--net=none", "-u", user, users, "id")
    assert len(message.splitlines()) <= 2, message
    assert hostile.stored(pyrun) == before


@pytest.mark.parametrize("kind", ["huge", "fifo", "device", "directory", "link to /proc"])
def test_a_passwd_that_is_no_file(pyrun: Pyrun, kind: str) -> None:
    """Never read without an end, never waited for."""

    def change(root: Path) -> None:
        place = root / "etc/passwd"
        place.unlink()
        if kind == "directory":
            place.mkdir()
        elif kind == "link to /proc":
            place.symlink_to("/proc/kmsg")
        else:
            hostile.odd_file(place, kind)

    hostile.put_image(pyrun, "evil", change)
    began = time.monotonic()
    pyrun.fails(125, "run", "--rm", "--net=none", "-u", "bob", "evil", "true")
    assert time.monotonic() - began < 2
    if kind != "huge":  # numbers need no file
        pyrun.ok("run", "--rm", "--net=none", "-u", "5", "evil", "true")


# ── ids and names ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "identifier", ["..", ".", "a/b", "../a", "a\nb", "", "x" * 1100, "a b", "a\tb", "\u00e4", "a:b", "%2e%2e"]
)
def test_ids_that_could_be_paths(pyrun: Pyrun, tmp_path: Path, identifier: str) -> None:
    bundle = hostile.put_bundle(pyrun, tmp_path / "bundle")
    pyrun.ok("run", "--bundle", str(bundle), "good-id_1.2")
    before = hostile.stored(pyrun)
    message = pyrun.fails(125, "run", "--bundle", str(bundle), "--", identifier)
    assert len(message.splitlines()) <= 2 and len(message) < 400, message
    assert hostile.stored(pyrun) == before


@pytest.mark.parametrize("path", ["../../../../x", "/../../x", "/a/../../x"])
def test_cgroup_paths_stay_below(pyrun: Pyrun, tmp_path: Path, path: str) -> None:
    """A bundle's cgroupsPath that climbs out of the hierarchy."""
    bundle = hostile.put_bundle(pyrun, tmp_path / "bundle", linux={"cgroupsPath": path})
    done = pyrun("run", "--bundle", str(bundle), "victim")
    assert done.returncode == 125 or not Path("/sys/fs/x").exists()
    assert not list(Path("/sys/fs").glob("cgroup/../x")) and not Path("/sys/x").exists()
    assert done.returncode == 125, done


FORGED = "x\n       sh   touch pwned\x1b[2J\nundo list $(touch pwned) \u202e\x9b2J"
# What is taken out of the weakened build.
RAW_LINES = (
    "safe.py",
    r"    if text\.isprintable\(\):\n        return text\n    return ",
    "    return text\n    return ",
)
UNQUOTED = ("safe.py", r"if text and _PLAIN\.issuperset\(text\)", "if text")


def told(pyrun: Pyrun) -> tuple[list[str], bool]:
    """What of an image's words is a line of its own or drives the terminal, and whether one of them is a command."""
    image = hostile.put_image(
        pyrun, "forger", WorkingDir=f"/{FORGED}", Cmd=[FORGED], Labels={FORGED: FORGED}, Env=["PATH=/bin"],
        Volumes={"/v " + FORGED.replace("\n", " "): {}},
    )  # fmt: skip
    said = [pyrun("run", "--dry-run", "--net=none", image), pyrun("run", "--rm", "--explain", "--net=none", image),
            pyrun("images"), pyrun("rmi", image), pyrun("stop", FORGED), pyrun("rm", FORGED),
            pyrun("load", "-i", FORGED), pyrun("--debug", "logs", FORGED)]  # fmt: skip
    lines = [line for each in said for line in f"{each.stdout}{each.stderr}".split("\n")]
    odd = [
        line
        for line in lines
        if not line.isprintable() or line.startswith(("       sh   touch pwned", "undo list $"))
    ]
    typed = [line for line in lines if line.startswith("       sh ") and "touch pwned" in line]
    bare = any("touch pwned" in re.sub(r"\$?'[^']*'|\"[^\"]*\"", "", line) for line in typed)
    return odd, bare


def test_what_is_told_forges_no_line(pyrun: Pyrun) -> None:
    assert told(pyrun) == ([], False)


def test_a_line_would_be_forged(pyrun: Pyrun, weak_installation: Callable[..., Path]) -> None:
    pyrun.binary = weak_installation(RAW_LINES, UNQUOTED).with_name("pyrun")
    odd, bare = told(pyrun)
    assert odd and bare


LINE = "x\n6.6.6.6 evil"
# What is taken out of the weakened build.
LINES_IN_HOSTS = ("spec/values.py", r" or any\(c\.isspace\(\) for c in text\)", "")


@pytest.mark.parametrize(
    "options",
    [
        ("-h", LINE), ("--name", LINE), ("--add-host", f"{LINE}:1.2.3.4"), ("--add-host", "x:1.2.3.4\n6.6.6.6 evil"),
        ("--network", "bridge\n"), ("-w", "x\nroot2::0:0"), ("--name", "../x"), ("--network", "../x"), ("-h", "a/b"),
        ("--stop-signal", "TERM\n"), ("-p", "80:80\n"), ("--cap-add", "CHOWN\n"), ("-m", "64m\n"), ("-h", "-x"),
        ("--name", "a:b"), ("--name", "-rf"), ("-h", "x" * 64), ("--tmpfs", "/x:size=1m\n"), ("-e", "=c"),
    ],
)  # fmt: skip
def test_no_line_is_smuggled_in(pyrun: Pyrun, options: tuple[str, ...]) -> None:
    before = hostile.stored(pyrun)
    message = pyrun.fails(125, "run", "--rm", "--net=none", *options, "busybox", "true")
    assert len(message.splitlines()) <= 2, message
    assert hostile.stored(pyrun) == before


def test_a_line_would_be(pyrun: Pyrun, weak_installation: Callable[..., Path]) -> None:
    pyrun.binary = weak_installation(LINES_IN_HOSTS).with_name("pyrun")
    options = ("--net=none", "--add-host", f"{LINE}:1.2.3.4")
    assert "6.6.6.6 evil" in pyrun.ok("run", "--rm", *options, "busybox", "cat", "/etc/hosts").splitlines()


def test_what_may_hold_newlines_keeps_them_to_itself(pyrun: Pyrun) -> None:
    """An environment variable, a label, a directory: the data of one place, and of no other."""
    evil = "x\nroot2::0:0::/:/bin/sh\n6.6.6.6 evil"
    script = 'cat /etc/hosts /etc/passwd /etc/hostname /etc/resolv.conf; pwd; printf %s "$A" | wc -l'
    shown = pyrun.ok("run", "--rm", "-e", f"A={evil}", "-e", f"HOME={evil}", "-l", f"a={evil}", "-w",
    "/" + evil.replace("/", "_"),
                     "busybox", "sh", "-c", script)  # fmt: skip
    files, _, directory = shown.partition("\n/x\n")
    assert "evil" not in files and "root2" not in files, shown
    assert directory.endswith("evil\n2"), shown


# ── what an image says of itself ───────────────────────────────────────────────────────────────────


def test_an_image_controls_nothing_but_its_process(pyrun: Pyrun, canary: hostile.Canary) -> None:
    """Labels, volumes, health checks and unknown fields never become options, mounts or hooks."""
    hostile.put_image(
        pyrun, "evil", None, Entrypoint=["sh", "-c", "cat /proc/self/status /proc/mounts"],
        WorkingDir="/proc/self/../..",
        Labels={"pyrun.seccomp": "unconfined", "pyrun.rm": "true", "io.containerd.image": f"binary://{canary.directory}/x"},
        Volumes={f"/../..{canary.directory}": {}}, Healthcheck={"Test": ["CMD", f"touch {canary.directory}/x"]},
        Privileged=True, CapAdd=["ALL"], Binds=[f"{canary.directory}:/canary"], StopSignal="SIGTERM", OnBuild=["x"],
        ExposedPorts={"1/tcp": {}}, annotations={"pyrun.seccomp": "unconfined"},
    )  # fmt: skip
    shown = pyrun.ok("run", "--rm", "--name=victim", "--net=none", "evil")
    assert "Seccomp:\t2" in shown and "CapEff:\t00000000a80425fb" in shown and "/canary" not in shown, shown
    assert canary.unchanged()


# ── sysctls ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "kernel.shm_rmid_forced=1+kernel.core_pattern=x\n", "kernel.core_pattern=|/x", "kernel/core_pattern=x",
        "net.ipv4.ip_forward=1\nkernel.core_pattern=x", "net/../kernel/core_pattern=x", "net..kernel.core_pattern=x",
        "net.ipv4/../../kernel/core_pattern=x", "vm.overcommit_memory=1", "kernel.hostname=x", "fs.file-max=1",
        "net.ipv4.ip_forward", "=1", "net =1", "net.\u00fc=1", "kernel.shmmax+x=1", "net.ipv4.../ip_forward=1",
        "user.max_user_namespaces=0", "kernel.modprobe=/x", "net./ipv4/ip_forward=1",
    ],
)  # fmt: skip
def test_only_sysctls_of_the_container(pyrun: Pyrun, text: str) -> None:
    names = [
        name for name in ("core_pattern", "hostname", "modprobe") if Path("/proc/sys/kernel", name).exists()
    ]
    before = [Path("/proc/sys/kernel", name).read_text() for name in names]
    message = pyrun.fails(125, "run", "--rm", "--net=none", "--sysctl", text, "busybox", "true")
    assert len(message.splitlines()) <= 2, message
    assert before == [Path("/proc/sys/kernel", name).read_text() for name in names]


def test_sysctls_that_are(pyrun: Pyrun) -> None:
    """And the value is data: what CVE-2022-0811 smuggled in stays one (refused) value."""
    options = ["--sysctl", "net.core.somaxconn=333", "--sysctl", "kernel.shm_rmid_forced=1"]
    shown = pyrun.ok("run", "--rm", "--net=none", *options, "busybox", "cat", "/proc/sys/net/core/somaxconn",
                     "/proc/sys/kernel/shm_rmid_forced")  # fmt: skip
    assert shown.split() == ["333", "1"]
    pyrun.fails(
        125,
        "run",
        "--rm",
        "--net=none",
        "--sysctl",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=x",
        "busybox",
        "true",
    )
    pyrun.fails(125, "run", "--rm", "--net=host", "--sysctl", "net.core.somaxconn=333", "busybox", "true")

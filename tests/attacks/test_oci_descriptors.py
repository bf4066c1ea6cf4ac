"""What comes along into a container, or can be reached through who enters it: by `pyrun-oci` run, create, exec, hooks.

Each attack returns what shows that it worked, nothing if it did not; see test_oci_links.py.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hostile
import weakened
from oci.box import Box
from waiting import until

VERBS = ("run", "create", "exec")
LIST = "ls -l /proc/self/fd 2>/dev/null | sed -n 's/.* -> //p'"
# What a hook gets beside: its state, and where its output goes.
FOR_HOOKS = re.compile(hostile.ALLOWED.pattern + r"|/memfd:hook-(state|output)( \(deleted\))?")

# What is taken out of the weakened builds.
CALLERS_STAY_OPEN = (
    "sealing.py",
    r"\n    linux\.close_range\(3, \(1 << 32\) - 1, linux\.CLOSE_RANGE_CLOEXEC\)",
    "",
)
FOR_HOOKS_TOO = ("engine/oci/hooks.py", r"\n    linux\.close_range\(3, [^\n]*", "")
ALL_CROSS_EXECVE = ("init_command.c", r"3 \+ plan->preserved, ~0u", "~0u, ~0u")
ANY_DIRECTORY = ("init_process.c", r"current\[0\] == '/' \? 0 : -EXDEV", "0")
NO_DIRECTORY_FIRST = (
    "init_nodes.c",
    r"return close\(fd\);\n    if \(fd != -ENOENT\) return fd;",
    "return close(fd);\n    if (fd != -ENOENT) return 0;",
)
EVERY_STREAM_IS_THE_USERS = ("init_streams.c", r"S_ISFIFO\(status\.st_mode\) && ", "")
NULL_OF_THE_CALLER = (
    "init_streams.c",
    r"S_ISCHR\(status\.st_mode\) && status\.st_rdev == makedev\(1, 3\)\) \{\n",
    "0) {\n",
)

SOCKET_WITHOUT_A_FILE = (
    "engine/oci/prepare.py",
    r'socket\.bind\(f"/proc/self/fd/\{directory_fd\}/start\.sock"\)',
    r'socket.bind(f"\0{run_dir}/start.sock")',
)


@pytest.fixture
def leaked(lab_tmpfs: Path) -> Iterator[list[int]]:
    """Descriptors of the host which the caller left open and inheritable, low numbers and a high one."""
    (lab_tmpfs / "secret").write_text("secret\n")
    fds = [
        os.open(path, os.O_RDONLY) for path in ("/", "/etc", lab_tmpfs / "secret", "/proc", "/sys/fs/cgroup")
    ]
    fds.append(os.dup2(fds[0], 100))
    yield fds
    for fd in fds:
        os.close(fd)


def do(arena: Any, verb: str, box: Box, script: str, fds: list[int]) -> str:
    """What a shell script prints, run by *verb* with *fds* left open by the caller of each step."""
    if verb in ("run", "create"):
        done = arena.go(box, verb, "sh", "-c", script, pass_fds=fds)
        return str(done.out + done.err)
    box.detach(pass_fds=fds)
    done = box.call("exec", box.id, "sh", "-c", script, pass_fds=fds)
    box.call("delete", "--force", box.id)
    return done.out + done.err


# ── CVE-2024-21626: descriptors, and directories named through them ────────────────────────────────


def foreign(arena: Any, verb: str, fds: list[int]) -> list[str]:
    """Targets of /proc/self/fd that are nobody's business inside."""
    found = do(arena, verb, arena.box(), LIST, fds).splitlines()
    assert len(found) >= 3, found
    return [each for each in found if not hostile.ALLOWED.fullmatch(each)]


@pytest.mark.parametrize("verb", VERBS)
def test_no_descriptor_comes_along(arena: Any, leaked: list[int], verb: str) -> None:
    assert not foreign(arena, verb, leaked)


@pytest.mark.parametrize("verb", VERBS)
def test_they_come_along_where_nobody_sees_to_it(
    weak: Callable[..., Any], leaked: list[int], verb: str
) -> None:
    changes = (CALLERS_STAY_OPEN, ALL_CROSS_EXECVE, weakened.DESCRIPTORS_STAY)
    assert "/etc" in foreign(weak(*changes), verb, leaked)


def test_no_descriptor_comes_along_with_a_terminal(arena: Any) -> None:
    shown = arena.on_a_terminal(arena.box(), "sh", "-c", LIST).splitlines()
    assert len(shown) >= 3 and all(hostile.ALLOWED.fullmatch(each) for each in shown), shown


def test_init_waiting_for_start_holds_nothing_of_the_host(arena: Any, leaked: list[int]) -> None:
    box = arena.box()
    box.create("true", pass_fds=leaked)
    targets = [os.readlink(path) for path in Path(f"/proc/{box.pid}/fd").iterdir()]
    waiting = re.compile(
        hostile.ALLOWED.pattern + r"|socket:\[\d+\]|/memfd:pyrun-plan.*|/|/(proc|sys)/[a-z_]+"
    )
    assert all(waiting.fullmatch(each) for each in targets), targets
    host = os.stat("/")
    for path in Path(f"/proc/{box.pid}/fd").iterdir():  # "/" may be its own procfs, never the host's root
        seen = os.stat(path)
        assert (seen.st_dev, seen.st_ino) != (host.st_dev, host.st_ino), os.readlink(path)
        # of procfs and sysfs only what masks a directory, which is empty
        assert os.readlink(path)[:5] not in ("/proc", "/sys/") or not os.listdir(path)
    for place in ("cwd", "root"):
        seen = os.stat(f"/proc/{box.pid}/{place}")
        assert (seen.st_dev, seen.st_ino) != (host.st_dev, host.st_ino), place


def test_only_preserved_descriptors_come_along(arena: Any, leaked: list[int], lab_tmpfs: Path) -> None:
    """--preserve-fds 1 gives descriptor 3, and not the next."""
    box = arena.box()
    box.write("sh", "-c", LIST)
    opened = ("sh", "-c", f'exec "$@" 3<{lab_tmpfs}/secret 4</etc 5</', "sh")
    done = box.call(
        "run", "--preserve-fds", "1", "--bundle", str(box.bundle), box.id, prefix=opened, pass_fds=leaked
    )
    others = [each for each in done.out.splitlines() if not hostile.ALLOWED.fullmatch(each)]
    assert len(others) == 1 and others[0].endswith("/secret"), done


HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hooks_see(arena: Any, fds: list[int]) -> dict[str, list[str]]:
    """Kind of hook -> what its /proc/self/fd and environment hold that they should not."""
    box = arena.box()
    logs = {kind: (box.rootfs if kind == "startContainer" else box.directory) / kind for kind in HOOKS}
    for kind, log in logs.items():
        log.mkdir()
        inside = f"/{kind}" if kind == "startContainer" else str(log)
        script = "ls -l /proc/self/fd | sed -n 's/.* -> //p'; echo =; cat /proc/self/environ | tr '\\0' '\\n'"
        script = f"#!/bin/sh\n({script}) >{inside}/hook.log\n"
        (log / "hook").write_text(script)
        (log / "hook").chmod(0o755)
        box.config.setdefault("hooks", {})[kind] = [{"path": f"{inside}/hook", "env": ["MINE=1"]}]
    box.process["env"] += ["LD_PRELOAD=/evil.so", "SECRET=of-the-container"]
    box.create("sleep", "5", pass_fds=fds)
    box.ok("start", box.id, pass_fds=fds)
    box.ok("delete", "--force", box.id, pass_fds=fds)
    wrong: dict[str, list[str]] = {}
    for kind, log in logs.items():
        targets, _, environment = (log / "hook.log").read_text().partition("=\n")
        names = {line.split("=")[0] for line in environment.splitlines()}
        assert "MINE" in names and len(targets.splitlines()) >= 3, (kind, targets, environment)
        wrong[kind] = [each for each in targets.splitlines() if not FOR_HOOKS.fullmatch(each)]
        # the shell's own beside
        wrong[kind] += sorted(names - {"MINE", "PWD", "SHLVL", "_", "OLDPWD", "PATH"})
        wrong[kind] += [line for line in environment.splitlines() if "container" in line]
    return {kind: found for kind, found in wrong.items() if found}


def test_hooks_get_what_is_theirs(arena: Any, leaked: list[int]) -> None:
    """CVE-2025-23266 (the image's environment in a hook), and the caller's descriptors."""
    assert hooks_see(arena, leaked) == {}


def test_hooks_would_get_the_callers_descriptors(weak: Callable[..., Any], leaked: list[int]) -> None:
    assert "/etc" in hooks_see(weak(CALLERS_STAY_OPEN, FOR_HOOKS_TOO), leaked)["poststart"]


def test_an_old_runc_gives_them_to_poststop(old: Callable[..., Any], leaked: list[int]) -> None:
    assert "/etc" in hooks_see(old("runc", (1, 1, 5)), leaked)["poststop"]


def directories(arena: Any, verb: str, fds: list[int]) -> str:
    """A working directory behind /proc/self/fd/N: of the host, if a runtime forgot one."""
    marker = "usr/sbin"  # of the host's root, and not of the box's
    script = f"ls -d ./{marker} ../{marker} ../../{marker} ../../../{marker} 2>/dev/null; pwd"
    box = arena.box()
    if verb == "exec":
        box.detach(pass_fds=fds)
    for number in (*range(3, 12), *fds):
        path = f"/proc/self/fd/{number}"
        if verb == "exec":
            done = box.call("exec", "--cwd", path, box.id, "sh", "-c", script, pass_fds=fds)
        else:
            box.process["cwd"] = path
            done = arena.go(box, verb, "sh", "-c", script, pass_fds=fds)
        assert "Traceback" not in done.err, done
        if marker in done.out:
            return f"{number}: {done.out}"
    return ""


@pytest.mark.parametrize("verb", VERBS)
def test_no_working_directory_through_a_descriptor(arena: Any, leaked: list[int], verb: str) -> None:
    assert not directories(arena, verb, leaked)


@pytest.mark.parametrize("verb", ["run", "create"])
def test_there_would_be_one(weak: Callable[..., Any], leaked: list[int], verb: str) -> None:
    """Not with exec: its init is not in the pid namespace of that /proc, and has no /proc/self there."""
    assert directories(weak(CALLERS_STAY_OPEN, ANY_DIRECTORY, NO_DIRECTORY_FIRST), verb, leaked)


# ── the caller's own ───────────────────────────────────────────────────────────────────────────────


def null_after(arena: Any, verb: str) -> tuple[int, ...]:
    """Owner and mode of /dev/null (the lab host's) after a user of the container had it as streams."""
    box = arena.box()
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.write("sleep", "0.1")
    quiet = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "timeout": 30,
    }
    create = {"exec": "run", "run": "run", "create": "create"}[verb]
    options = ["--detach"] if verb == "exec" else []
    if verb == "exec":
        box.write("sleep", "10")
    subprocess.run(
        box.runtime.command(box.root, (create, *options, "--bundle", str(box.bundle), box.id)),
        check=True,
        **quiet,
    )  # type: ignore[call-overload]
    if verb == "create":
        subprocess.run(box.runtime.command(box.root, ("start", box.id)), check=True, **quiet)  # type: ignore[call-overload]
        box.wait_for("stopped")
    if verb == "exec":
        subprocess.run(
            box.runtime.command(box.root, ("exec", "--user", "1000:1000", box.id, "true")),
            check=True,
            **quiet,
        )  # type: ignore[call-overload]
    seen = os.stat("/dev/null")
    os.chown("/dev/null", 0, 0)
    box.call("delete", "--force", box.id)
    return seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)


@pytest.mark.parametrize("verb", VERBS)
def test_the_callers_null_device_keeps_its_owner(arena: Any, verb: str) -> None:
    assert null_after(arena, verb) == (0, 0, 0o666)


def test_it_would_not_if_every_stream_were_the_users(weak: Callable[..., Any]) -> None:
    assert null_after(weak(EVERY_STREAM_IS_THE_USERS), "run")[0] == 1000


def changed(arena: Any, verb: str, null: str = "") -> list[str]:
    """What root of a container did to the null device it has as streams, a canary's. null: what the container's own
    /dev/null is: what every container has, a "file", or "none"."""
    box = arena.box()
    canary = box.directory / "null"
    os.mknod(canary, 0o020666, os.makedev(1, 3))
    os.chmod(canary, 0o666)
    box.capabilities("CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID")
    if null:
        box.config["mounts"] = [
            each for each in box.config["mounts"] if not each["destination"].startswith("/dev")
        ]
        box.bind("/dev", make_dev(box, null))
    attack = "for n in 0 1 2; do chmod 0 /proc/self/fd/$n; chown 5 /proc/self/fd/$n; done; : >/data/done"
    box.write(*(("sleep", "1000") if verb == "exec" else ("sh", "-c", attack)))
    create = ["create"] if verb == "create" else ["run", "--detach"]
    calls = [[*create, "--bundle", str(box.bundle), box.id]]
    calls += {"run": [], "create": [["start", box.id]], "exec": [["exec", box.id, "sh", "-c", attack]]}[verb]
    with open(canary, "r+b", buffering=0) as streams:
        for words in calls:
            command = box.runtime.command(box.root, words)
            subprocess.run(command, check=True, stdin=streams, stdout=streams, stderr=streams, timeout=30)
    until((box.rootfs / "data/done").exists, "the end of the attack")
    seen = canary.stat()
    box.call("delete", "--force", box.id)
    picture = {"owner": (seen.st_uid, seen.st_gid) != (0, 0), "mode": stat.S_IMODE(seen.st_mode) != 0o666}
    return [name for name, differs in picture.items() if differs]


def make_dev(box: Box, null: str) -> Path:
    """A /dev of the bundle's own, in which nothing is made."""
    directory = box.directory / "dev"
    directory.mkdir()
    if null == "file":
        (directory / "null").touch()
    return directory


@pytest.mark.parametrize("null", ["", "file", "none"])
@pytest.mark.parametrize("verb", VERBS)
def test_the_callers_null_device_is_not_the_containers(arena: Any, verb: str, null: str) -> None:
    assert not changed(arena, verb, null)


@pytest.mark.parametrize("verb", VERBS)
def test_it_would_be_if_it_were_handed_in(weak: Callable[..., Any], verb: str) -> None:
    assert changed(weak(NULL_OF_THE_CALLER), verb) == ["owner", "mode"]


def test_a_null_device_is_still_one(arena: Any) -> None:
    """What is read from it and written to it; that a user namespace has it, whose root could not change it anyway."""
    box = arena.box()
    box.map_ids()
    box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] != "/dev/mqueue"]
    script = "cat && echo x >/dev/stderr && stat -Lc %t:%T /dev/stdin && stat -Lc %d:%i /dev/stdin /dev/null"
    box.write("sh", "-c", script)
    command = box.runtime.command(box.root, ("run", "--bundle", str(box.bundle), box.id))
    null = subprocess.DEVNULL
    shown = subprocess.run(
        command, check=True, stdin=null, stderr=null, stdout=subprocess.PIPE, text=True, timeout=30
    )
    kind, stdin, own = shown.stdout.split()
    assert kind == "1:3" and stdin == own


def abstract() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "@" in line}


def waiting_on_the_hosts_network(arena: Any) -> Box:
    """A created container, whose init listens for `start`."""
    box: Box = arena.box()
    box.without_namespace("network")
    box.config["mounts"] = [each for each in box.config["mounts"] if each["destination"] != "/sys"]
    box.create("sleep", "10")
    return box


def test_sockets_are_files_of_root(arena: Any) -> None:
    """CVE-2020-15257: what a container on the host's network sees, and what other users of the host can connect to."""
    before = abstract()
    with hostile.without_umask():
        box = waiting_on_the_hosts_network(arena)
    assert not abstract() - before
    sockets = [path for path in box.root.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
    assert sockets, "the control: init listens somewhere"
    for path in sockets:
        parents = [parent for parent in path.parents if parent.is_relative_to(box.root)]
        assert any(not parent.stat().st_mode & 0o077 for parent in parents), path
    box.start()
    assert not abstract() - before


def test_a_socket_without_a_file_is_everybodys(weak: Callable[..., Any]) -> None:
    before = abstract()
    box = waiting_on_the_hosts_network(weak(SOCKET_WITHOUT_A_FILE))
    assert [name for name in abstract() - before if box.id in name]

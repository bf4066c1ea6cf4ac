"""config.json: `hooks`: their order, what they are given, where they run, what a failure means (config.md)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from oci.box import PATH, Box
from oci.marks import rows, shows

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
AT_CREATE = KINDS[:3]
HOOK = "config: hooks."


def _fields(*kinds: str) -> tuple[str, ...]:
    return tuple(
        f"{HOOK}{kind}[].{field}" for kind in kinds for field in ("path", "args[]", "env[]", "timeout")
    )


def _note(box: Box, kind: str, *, status: int = 0, word: str = "") -> None:
    """Add a hook that writes its kind and standard input into a file.

    A startContainer hook runs inside: its program and its file are in the root.
    """
    directory = box.rootfs / "data"
    inside = "/data" if kind == "startContainer" else str(directory)
    number = len(list(directory.glob("hook-*")))
    path = directory / f"hook-{number}"
    path.write_text(
        f"#!/bin/sh\ncat >{inside}/state-{kind}\necho {kind}{word} >>{inside}/order\nexit {status}\n"
    )
    path.chmod(0o755)
    box.config.setdefault("hooks", {}).setdefault(kind, []).append(
        {"path": f"{inside}/hook-{number}", "env": [PATH]}
    )


def _shell(script: str) -> list[str]:
    """The args of a shell script that reads its standard input: crun before 1.17 fails when a hook does not."""
    return ["sh", "-c", f"cat >/dev/null; {script}"]


def _order(box: Box) -> list[str]:
    path = box.rootfs / "data/order"
    return path.read_text().split() if path.exists() else []


def _state(box: Box, kind: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((box.rootfs / f"data/state-{kind}").read_text())
    return state


@shows(
    "hooks: order",
    differs={"runc": "1.1 runs poststart at create", "crun": "start does not wait for startContainer"},
)
@shows(*(f"{HOOK}{kind}[].path" for kind in KINDS))
def test_order(box: Box) -> None:
    """All of one kind in the listed order; the kinds as the life goes on."""
    for kind in reversed(KINDS):
        _note(box, kind, word="-a")
        _note(box, kind, word="-b")
    box.create("sh", "-c", "echo program >>/data/order; sleep 1000")
    made = [f"{kind}-{letter}" for kind in AT_CREATE for letter in "ab"]
    assert _order(box) == made
    box.start()
    order = _order(box)
    assert order[:8] == [*made, "startContainer-a", "startContainer-b"]
    assert set(order[8:]) <= {"program", "poststart-a", "poststart-b"}
    assert order.index("poststart-a") < order.index("poststart-b")
    box.ok("delete", "--force", box.id)
    assert _order(box)[-2:] == ["poststop-a", "poststop-b"]


@shows("hooks: state on standard input",
       differs={"runc": "1.1 runs poststart too early", "crun": "pid 0 or bundle / for hooks inside"})  # fmt: skip
@shows(*(f"{HOOK}{kind}[].path" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_state(box: Box, kind: str) -> None:
    """Schema-valid; the pid is the host's for those that run in the runtime's namespaces, else the container's."""
    box.config["annotations"] = {"a": "b"}
    _note(box, kind)
    box.create("sleep", "1000")
    pid = box.pid
    box.start()
    box.ok("delete", "--force", box.id)
    state = _state(box, kind)
    assert state["id"] == box.id
    assert state["bundle"] == str(box.bundle)
    assert state["annotations"] == {"a": "b"}
    assert state["ociVersion"]
    expected = {"prestart": ("creating", "created"), "createRuntime": ("creating", "created"),
                "createContainer": ("creating", "created"), "startContainer": ("created", "creating"),
                "poststart": ("running",), "poststop": ("stopped",)}  # fmt: skip
    assert state["status"] in expected[kind]
    if kind in ("prestart", "createRuntime", "poststart"):
        assert state["pid"] == pid
    elif kind in ("createContainer", "startContainer"):
        assert state["pid"] == 1


@shows("hooks: pid of a container in the host's pid namespace", differs={"crun": "pid 0"})
@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_pid_without_a_pid_namespace(box: Box, kind: str) -> None:
    """Also under a filter that knows no getpid."""
    if kind == "startContainer":
        box.known_to_differ("runc", "asks when it may not")
    box.process["noNewPrivileges"] = False
    rules = [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}]
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    box.without_namespace("pid")
    _note(box, kind)
    box.create("sleep", "1000")
    pid = box.pid
    box.start()
    assert _state(box, kind)["pid"] == pid


@shows(*(f"{HOOK}{kind}[].args[]" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_args(box: Box, kind: str) -> None:
    """execv's argv as given, argv[0] included; without args, the path."""
    where = "/data" if kind == "startContainer" else str(box.rootfs / "data")
    zero = "sh" if kind == "startContainer" else "zero"  # busybox goes by it
    script = f'printf "%s|" "$0" "$@" >{where}/args'
    box.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": [zero, "-c", f"cat >/dev/null; {script}", "one", "two words", ""]}]
    }
    box.detach()
    box.ok("delete", "--force", box.id)
    assert (box.rootfs / "data/args").read_text() == "one|two words||"


@shows("hooks: the working directory is the bundle")
@pytest.mark.parametrize("kind", KINDS)
def test_working_directory(box: Box, kind: str) -> None:
    """Wherever the caller is; createContainer's and startContainer's is the container's root."""
    if kind == "createContainer":
        box.known_to_differ("crun", "the bundle")
    where = "/data" if kind == "startContainer" else str(box.rootfs / "data")
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": _shell(f"pwd >{where}/pwd"), "env": [PATH]}]}
    box.run("true", cwd=box.directory)
    wanted = {"startContainer": "/", "createContainer": str(box.rootfs)}.get(kind, str(box.bundle))
    assert (box.rootfs / "data/pwd").read_text() == f"{wanted}\n"


@shows("hooks: relative paths are the caller's", differs={"crun": "the bundle's"})
def test_relative_paths_beside_hooks(box: Box) -> None:
    box.config["hooks"] = {kind: [{"path": "/bin/true"}] for kind in ("prestart", "poststart")}
    box.detach(options=["--pid-file", "pid"], cwd=box.directory)
    assert (box.directory / "pid").read_text() == str(box.pid)


@shows("hooks: poststop without a bundle", differs={"crun": "fails"})
def test_poststop_of_a_bundle_that_is_gone(box: Box) -> None:
    where = box.directory / "called"
    box.config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": _shell(f"echo >{where}"), "env": [PATH]}]}
    box.detach()
    box.bundle.rename(box.directory / "elsewhere")
    try:
        box.ok("delete", "--force", box.id, cwd=box.directory)
    finally:
        (box.directory / "elsewhere").rename(box.bundle)
    assert where.exists()


@shows(*(f"{HOOK}{kind}[].env[]" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_env(box: Box, kind: str) -> None:
    """Exactly the given variables: nothing of the runtime's, nothing of the container's (CVE-2025-23266)."""
    box.process["env"] += ["LD_AUDIT=/evil.so", "LEAK=1"]
    where = "/data" if kind == "startContainer" else str(box.rootfs / "data")
    script = f"env >{where}/env"
    box.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": _shell(script), "env": [PATH, "ONE=1", "TWO="]}]
    }
    box.write("sleep", "1000")
    box.ok("run", "-d", box.id, env={"CALLER": "1"})
    box.ok("delete", "--force", box.id)
    seen = (box.rootfs / "data/env").read_text().splitlines()
    of_the_shell = ("PWD=", "OLDPWD=", "SHLVL=", "_=")
    assert sorted(each for each in seen if not each.startswith(of_the_shell)) == ["ONE=1", PATH, "TWO="]


@shows(
    "hooks: without env there is no variable of the container", *(f"{HOOK}{kind}[].env[]" for kind in KINDS)
)
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "poststart", "poststop"])
def test_env_unset(box: Box, kind: str) -> None:
    """A hook of the runtime's namespaces never sees the image's environment: LD_PRELOAD there is code on the host."""
    if kind == "createContainer":
        box.known_to_differ("runc", "CVE-2025-23266: hands the image's environment on")
    box.process["env"] += ["LEAK=1"]
    where = box.rootfs / "data"
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": _shell(f"/usr/bin/env >{where}/env")}]}
    box.detach()
    box.ok("delete", "--force", box.id)
    assert "LEAK" not in (box.rootfs / "data/env").read_text()


@shows("hooks: without env the caller's PATH is there", *(f"{HOOK}{kind}[].env[]" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_env_inherited(box: Box, kind: str) -> None:
    """Hooks in the wild count on PATH. A secret of the caller stays its own; startContainer's is the container's."""
    box.process["env"] += ["LEAK=1"]
    where = "/data" if kind == "startContainer" else str(box.rootfs / "data")
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": _shell(f"env >{where}/env")}]}
    box.write("sleep", "1000")
    caller = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/of-the-caller", "LANG": "C.UTF-8", "TOKEN": "secret"}
    box.ok("run", "-d", box.id, env=caller)
    box.ok("delete", "--force", box.id, env=caller)
    seen = (box.rootfs / "data/env").read_text()
    if kind == "startContainer":
        box.known_to_differ("runc", "before 1.2 the runtime's own")
        assert "LEAK=1" in seen and PATH in seen.splitlines()
    elif not (kind == "createContainer" and box.runtime.name != "pyrun-oci"):
        assert "/of-the-caller" in seen
        if box.runtime.name == "pyrun-oci":
            assert "LANG=C.UTF-8" in seen and "TOKEN" not in seen


@shows("hooks: startContainer's under the container's filter", differs={"runc": "before 1.5", "crun": "not"})
@pytest.mark.parametrize("late", [True, False])
def test_start_container_runs_under_the_filter(box: Box, late: bool) -> None:
    box.process["noNewPrivileges"] = late
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    hook = {"path": "/bin/sh", "args": _shell("mkdir /data/made 2>/data/said; true"), "env": [PATH]}
    box.config["hooks"] = {"startContainer": [hook]}
    box.run("true")
    assert "not permitted" in (box.rootfs / "data/said").read_text()
    assert not (box.rootfs / "data/made").exists()


@shows(*(f"{HOOK}{kind}[].timeout" for kind in KINDS))
@pytest.mark.parametrize("kind", KINDS)
def test_timeout(box: Box, kind: str) -> None:
    """After so many seconds the hook is ended, and has failed."""
    if kind == "startContainer":
        box.known_to_differ("crun", "start does not wait")
        box.known_to_differ("runc", "start does not wait")
    box.config["hooks"] = {
        kind: [{"path": "/bin/sleep", "args": ["sleep", "60"], "env": [PATH], "timeout": 1}]
    }
    began = time.monotonic()
    if kind == "poststop":
        box.detach()
        box.call("delete", "--force", box.id)
    else:
        box.write("sleep", "1000")
        box.fails("run", "--detach", box.id)
    assert 0.9 < time.monotonic() - began < 10
    if kind == "poststop":
        box.fails("state", box.id)


@shows("hooks: timeout 0", differs={"runc": "waits without end", "crun": "takes it for none"})
@pytest.mark.parametrize("timeout", [0, -1])
def test_bad_timeout(box: Box, timeout: int) -> None:
    """If set, `timeout` MUST be greater than zero."""
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "timeout": timeout}]}
    box.refuses("true")


@shows("hooks: a failure at create")
@pytest.mark.parametrize("kind", rows("hooks: failure of ", *AT_CREATE))
def test_failure_at_create(box: Box, kind: str) -> None:
    """An error; the container is destroyed; the remaining hooks do not run."""
    _note(box, kind, status=3)
    _note(box, kind, word="-second")
    _note(box, "startContainer")
    error = box.refuses("sleep", "1000")
    assert "hook" in error or box.runtime.name == "crun"
    assert _order(box) == [kind]
    assert not box.cgroup("memory").exists()


@shows("hooks: poststop runs after a failed create", differs={"runc": "does not", "crun": "does not"})
def test_poststop_after_a_failed_create(box: Box) -> None:
    """runtime.md, steps 3 and 12: stop the container, and go on with its destruction and the poststop hooks."""
    _note(box, "createRuntime", status=1)
    _note(box, "poststop")
    box.refuses("sleep", "1000")
    assert _order(box) == ["createRuntime", "poststop"]


@shows(
    "hooks: failure of startContainer", differs={"runc": "start does not wait", "crun": "start does not wait"}
)
def test_failure_of_start_container(box: Box) -> None:
    """The program does not run; start is an error; the container is removed, and poststop hooks are called."""
    _note(box, "startContainer", status=3)
    _note(box, "poststop")
    box.create("sh", "-c", "echo program >>/data/order")
    box.fails("start", box.id)
    assert _order(box) == ["startContainer", "poststop"]
    box.fails("state", box.id)


@shows("hooks: failure of poststart", differs={"crun": "a warning only", "runc": "1.1 runs it at create"})
def test_failure_of_poststart(box: Box) -> None:
    """Since 1.3 of the specification: an error, the container is removed, and poststop hooks are called."""
    _note(box, "poststart", status=3)
    _note(box, "poststop")
    box.create("sleep", "1000")
    pid = box.pid
    box.fails("start", box.id)
    assert _order(box)[-1] == "poststop"
    box.fails("state", box.id)
    assert (
        not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    )


@shows(
    "hooks: poststop runs after a failed poststart of `run`",
    differs={"runc": "does not", "crun": "a warning only"},
)
@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_poststop_after_a_failed_poststart(box: Box, options: list[str]) -> None:
    """`run` takes everything away, and nobody comes to delete it any more."""
    _note(box, "poststart", status=1)
    _note(box, "poststop")
    box.write("sleep", "3")  # which crun waits for
    assert "poststart" in box.fails("run", *options, box.id)
    assert _order(box) == ["poststart", "poststop"]
    assert _state(box, "poststop")["status"] == "stopped"
    box.fails("state", box.id)


@shows("hooks: failure of poststop", differs={"runc": "1.1 gives up then"})
def test_failure_of_poststop(box: Box) -> None:
    """A warning; the remaining ones run and the container is deleted."""
    _note(box, "poststop", status=3)
    _note(box, "poststop", word="-second")
    box.detach("true")
    box.wait_for("stopped")
    box.ok("delete", box.id)
    assert _order(box) == ["poststop", "poststop-second"]
    box.fails("state", box.id)


@shows("hooks: a program that is not there")
@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer"])
def test_absent_program(box: Box, kind: str) -> None:
    if kind == "startContainer":
        box.known_to_differ("crun", "start does not wait")
        box.known_to_differ("runc", "start does not wait")
    box.config["hooks"] = {kind: [{"path": "/absent/hook"}]}
    box.write("sleep", "1000")
    box.fails("run", "--detach", box.id)
    box.fails("state", box.id)


@shows(
    "hooks: a relative path",
    differs={"runc": "looks it up in the bundle", "crun": "looks it up in the bundle"},
)
def test_relative_path(box: Box) -> None:
    """`path` MUST be absolute."""
    box.config["hooks"] = {"createRuntime": [{"path": "true"}]}
    (box.bundle / "true").write_text("#!/bin/sh\n")
    (box.bundle / "true").chmod(0o755)
    box.refuses("true")


NAMESPACES = ("net", "mnt", "uts", "pid")


@shows("hooks: in whose namespaces")
@pytest.mark.parametrize("kind", KINDS)
def test_namespaces(box: Box, kind: str) -> None:
    """createContainer's and startContainer's run in the container's; all others in the runtime's."""
    where = "/data" if kind == "startContainer" else str(box.rootfs / "data")
    script = "; ".join(f"readlink /proc/self/ns/{each} >>{where}/ns" for each in NAMESPACES)
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": _shell(script), "env": [PATH]}]}
    box.detach()
    pid = box.pid
    inside = [os.readlink(f"/proc/{pid}/ns/{each}") for each in NAMESPACES]
    box.ok("delete", "--force", box.id)
    found = (box.rootfs / "data/ns").read_text().split()
    outside = [os.readlink(f"/proc/self/ns/{each}") for each in NAMESPACES]
    if kind in ("createContainer", "startContainer"):
        assert found[:3] == inside[:3]
    elif box.runtime.name == "crun":  # itself in a mount namespace of the tests
        assert found[0] == outside[0] and found[2:] == outside[2:]
    else:
        assert found == outside


@shows("hooks: createContainer sees the mounts before the root is changed")
def test_create_container_before_pivot(box: Box) -> None:
    """The path is the host's, the mounts are made: what it mounts below the root is seen inside."""
    box.mount("/mnt", "tmpfs", "tmpfs")
    target = box.rootfs / "mnt"
    script = f"grep -q {target} /proc/self/mountinfo && touch {target}/by-hook"
    box.config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": _shell(script), "env": [PATH]}]}
    assert box.run("ls", "/mnt") == "by-hook"


@shows("hooks: createRuntime can set up the network")
def test_create_runtime_reaches_the_namespaces(box: Box) -> None:
    """As the CNI hooks do: by the pid in the state."""
    script = r"pid=$(sed 's/.*\"pid\": *\([0-9]*\).*/\1/'); "
    script += "nsenter --net=/proc/$pid/ns/net ip link add hooked0 type veth"
    box.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": [PATH]}]
    }
    assert "hooked0" in box.run("ip", "link")


@shows("hooks: startContainer has the container's restrictions or fewer")
def test_start_container_hook_user(box: Box) -> None:
    """It runs as the container's process would be able to: in the root, before the program."""
    script = "echo hook >/data/hooked"
    box.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": _shell(script)}]}
    assert box.run("cat", "/data/hooked") == "hook"


@shows(
    "hooks: one that does not read its standard input", differs={"crun": "an error now and then, before 1.17"}
)
@pytest.mark.parametrize("kind", KINDS)
def test_unread_input(box: Box, kind: str) -> None:
    box.config["annotations"] = {"long": "x" * 200000}  # more than a pipe holds
    box.config["hooks"] = {kind: [{"path": "/bin/true", "env": [PATH], "timeout": 5}]}
    box.detach()
    box.ok("delete", "--force", box.id)


@shows("hooks: their output does no harm")
@pytest.mark.parametrize("kind", KINDS)
def test_output(box: Box, kind: str) -> None:
    box.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": _shell("set -e; echo out; echo err >&2"), "env": [PATH]}]
    }
    box.detach()
    box.ok("delete", "--force", box.id)


@shows("hooks: a flood of output does not block")
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer", "poststart"])
def test_flood(box: Box, kind: str) -> None:
    script = "head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2"
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": _shell(script), "env": [PATH], "timeout": 10}]}
    box.detach()
    assert box.status == "running"

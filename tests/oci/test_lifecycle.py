"""The life of a container: states, and what each operation may do in which state (runtime.md)."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from oci.box import Box
from oci.limits import V1
from oci.marks import NEITHER, shows
from waiting import until


@shows("lifecycle: created, running, stopped, deleted", "create", "start", "state", "delete")
def test_states(box: Box) -> None:
    box.create("sleep", "1000")
    assert box.status == "created"
    box.start()
    assert box.status == "running"
    box.ok("kill", box.id, "KILL")
    box.wait_for("stopped")
    box.ok("delete", box.id)
    box.fails("state", box.id)
    assert not box.cgroup("memory").exists()


@shows("lifecycle: the program does not run before start", "create")
def test_create_does_not_run_the_program(box: Box) -> None:
    box.create("sh", "-c", "touch /data/ran; sleep 1000")
    assert not (box.rootfs / "data/ran").exists()
    box.start()
    until((box.rootfs / "data/ran").exists, "the program")


@shows("lifecycle: the environment is made by create")
def test_create_makes_the_environment(box: Box) -> None:
    """Namespaces, mounts and cgroups are there before `start`."""
    box.mount("/data", "tmpfs", "tmpfs")
    box.create("sleep", "1000")
    assert os.readlink(f"/proc/{box.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    assert " /data " in Path(f"/proc/{box.pid}/mountinfo").read_text()
    assert box.cgroup("memory").is_dir()


@shows("lifecycle: changes of config.json after create do not matter", "start")
def test_bundle_changes_after_create(box: Box) -> None:
    box.create("echo", "first")
    box.write("echo", "second")
    box.start()
    assert box.output() == "first"


@shows("lifecycle: the bundle's config.json may be gone after create", "start", "delete", "exec",
       differs={"runc": "exec reads it again"})  # fmt: skip
def test_config_gone_after_create(box: Box) -> None:
    box.create("sleep", "1000")
    (box.bundle / "config.json").unlink()
    box.start()
    assert box.exec("hostname") == "box"
    assert box.status == "running"


@shows("lifecycle: pid and status of a created container", "state")
def test_pid_is_the_containers(box: Box) -> None:
    box.create("sleep", "1000")
    pid = box.pid
    box.start()
    assert box.pid == pid
    cmdline = Path(f"/proc/{pid}/cmdline")
    until(lambda: cmdline.read_text() == "sleep\0" + "1000\0", "the program in that process")


@shows("lifecycle: a process that died between create and start", "start", "state", "delete")
def test_died_before_start(box: Box) -> None:
    box.create("true")
    os.kill(box.pid, signal.SIGKILL)
    box.wait_for("stopped")
    box.fails("start", box.id)
    box.ok("delete", box.id)


@shows("start", "errors: start of what is not created")
def test_start_twice(box: Box) -> None:
    box.create("sleep", "1000")
    box.start()
    box.fails("start", box.id)
    assert box.status == "running"


@shows("start", "errors: start of what is not created")
def test_start_of_a_stopped_container(box: Box) -> None:
    box.detach("true")
    box.wait_for("stopped")
    box.fails("start", box.id)
    assert box.status == "stopped"


@shows("start", "errors: process is not set")
def test_start_without_process(box: Box) -> None:
    """`process` may be missing at create, or the runtime refuses then already; start is an error."""
    del box.config["process"]
    box.write()
    if box.call("create", box.id).status == 0:
        box.fails("start", box.id)


@shows("start", "errors: the program is not there")
def test_start_of_an_absent_program(box: Box) -> None:
    """Whether it is there may be found out at create or at start; nothing runs and `delete` cleans up."""
    box.write("/bin/absent")
    if box.call("create", box.id).status == 0:
        assert "absent" in box.fails("start", box.id)
        box.wait_for("stopped")
        box.ok("delete", box.id)


@shows("errors: does not exist", "start", "state", "kill", "delete", differs={"crun": "says: No such file"})
@pytest.mark.parametrize(
    "words", ["start", "state", "kill", "delete", "exec", "pause", "resume", "ps", "update"]
)
def test_of_not_existing(box: Box, words: str) -> None:
    """Engines look for these words in the error."""
    more = {"kill": ["TERM"], "exec": ["true"], "update": ["--pids-limit", "5"]}.get(words, [])
    ordered = [words, *more, "absent"] if words == "update" else [words, "absent", *more]
    assert "does not exist" in box.fails(*ordered)


@shows("delete", "errors: delete of what is not stopped")
def test_delete_of_a_running_container(box: Box) -> None:
    box.detach()
    error = box.fails("delete", box.id)
    assert "stopped" in error
    assert box.status == "running"


@shows("delete")
def test_delete_of_a_created_container(box: Box) -> None:
    """runc kills what was only created; the specification would allow an error, engines rely on runc."""
    box.create("sleep", "1000")
    pid = box.pid
    box.ok("delete", box.id)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of init")


@shows("delete --force")
@pytest.mark.parametrize("flag", ["--force", "-f"])
def test_delete_force(box: Box, flag: str) -> None:
    box.detach()
    pid = box.pid
    box.ok("delete", flag, box.id)
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    box.fails("state", box.id)


@shows("delete --force", "delete --force: of not existing")
def test_delete_force_of_not_existing(box: Box) -> None:
    box.ok("delete", "--force", "absent")


@shows("delete --force", "delete --force: of a paused container")
def test_delete_force_of_a_paused_container(box: Box) -> None:
    box.detach()
    box.ok("pause", box.id)
    box.ok("delete", "--force", box.id)
    box.fails("state", box.id)


@V1
@shows("delete --force", "delete --force: of a container that has frozen a part of itself", since=NEITHER)
def test_delete_force_of_what_froze_itself(box: Box) -> None:
    """SIGKILL does not reach that part, and without its end the first process of the pid namespace does not end."""
    below = "/sys/fs/cgroup/freezer/below"
    box.namespace("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", "cgroup", "rw")
    box.detach(
        "sh", "-c", f"mkdir {below}; sleep 997 & echo $! >{below}/cgroup.procs; echo FROZEN >{below}/freezer.state;"
        "echo done; exec sleep 998",
    )  # fmt: skip
    box.output()
    box.ok("delete", "--force", box.id, globals_=["--debug"])  # or it waits 2 s before it asks an interpreter
    box.fails("state", box.id)


@shows("delete --force", "delete: without a pid namespace, what init left behind is killed too")
def test_delete_kills_everything_in_the_cgroup(box: Box) -> None:
    box.without_namespace("pid")
    box.detach("sh", "-c", "sleep 997 & sleep 996 & echo $! ; wait")
    child = int(box.output())
    box.ok("delete", "--force", box.id)
    until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child")


@shows("delete: the id can be used again")
def test_id_can_be_used_again(box: Box) -> None:
    for _ in range(2):
        box.create("true")
        box.ok("delete", "--force", box.id)
    assert box.run("echo", "x") == "x"


@shows("kill", "kill: signals by name and number")
@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15", "term", "sigterm"])
def test_kill_names(box: Box, name: str) -> None:
    if name.islower():
        box.known_to_differ("crun", "upper case only")
    box.detach("sh", "-c", "trap 'echo got; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    box.output()
    box.ok("kill", box.id, name)
    assert box.output(lambda text: "got" in text)
    box.wait_for("stopped")


@shows("kill", "kill: SIGTERM without a word")
def test_kill_default(box: Box) -> None:
    box.detach("sh", "-c", "trap 'echo got; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    box.output()
    box.ok("kill", box.id)
    assert box.output(lambda text: "got" in text)


@shows("kill", "kill: real-time signals", differs={"runc": "no names or numbers above 31"})
@pytest.mark.parametrize("name", ["SIGRTMIN+3", "37"])
def test_kill_realtime(box: Box, name: str) -> None:
    """systemd in a container is stopped by SIGRTMIN+3."""
    box.detach("sh", "-c", "trap 'echo got; exit 0' 37; echo ready; while :; do sleep 0.02; done")
    box.output()
    box.ok("kill", box.id, name)
    assert box.output(lambda text: "got" in text)


@shows("kill", "errors: unknown signal")
@pytest.mark.parametrize("name", ["NOPE", "SIG", "-1", "1000", "9x"], ids=repr)
def test_kill_unknown_signal(box: Box, name: str) -> None:
    box.known_to_differ("crun", "parses loosely")
    if name != "NOPE":
        box.known_to_differ("runc", "parses loosely")
    box.detach()
    box.fails("kill", "--", box.id, name)
    assert box.status == "running"


@shows("kill", "errors: container not running", differs={"crun": "says: is not running"})
@pytest.mark.parametrize("signal_", ["TERM", "KILL", "0"])
def test_kill_of_a_stopped_container(box: Box, signal_: str) -> None:
    """containerd looks for these words in the error."""
    box.detach("true")
    box.wait_for("stopped")
    assert "container not running" in box.fails("kill", box.id, signal_)


@shows("kill --all", "kill --all: of a stopped container", differs={"crun": "an error"})
@pytest.mark.parametrize("flag", ["--all", "-a"])
def test_kill_all_of_a_stopped_container(box: Box, flag: str) -> None:
    """Nobody is left to signal, and that is what was wanted."""
    box.detach("true")
    box.wait_for("stopped")
    box.ok("kill", flag, box.id, "KILL")
    assert box.status == "stopped"


@shows("kill", "lifecycle: kill of a created container")
def test_kill_of_a_created_container(box: Box) -> None:
    box.create("sleep", "1000")
    box.ok("kill", box.id, "KILL")
    box.wait_for("stopped")


@shows("kill --all")
@pytest.mark.parametrize("flag", ["--all", "-a"])
def test_kill_all(box: Box, flag: str) -> None:
    """Without a pid namespace of its own the others would live on."""
    box.without_namespace("pid")
    box.detach("sh", "-c", "sleep 995 & echo $! ; wait; sleep 995")
    child = int(box.output())
    box.ok("kill", flag, box.id, "KILL")
    until(lambda: not Path(f"/proc/{child}").exists(), "the end of the child")
    box.wait_for("stopped")


# Every process of it lives for a moment only, and has another follow.
RELAY = "r() { r & }; r; sleep 993"


@shows("kill --all", "kill --all: whoever is being born")
@pytest.mark.parametrize("flag", [[], ["--all"]])
def test_kill_all_of_a_relay(box: Box, flag: list[str]) -> None:
    if not flag:
        box.known_to_differ("runc", "before 1.2 the first process alone")
    box.known_to_differ("crun", "with --all whoever it saw in time; else the first process alone")
    box.without_namespace("pid")
    box.detach("sh", "-c", RELAY)
    listed = box.cgroup("pids") / "cgroup.procs"
    until(lambda: len(listed.read_text().split()) > 1, "the relay")
    box.ok("kill", *flag, box.id, "KILL")
    until(lambda: not listed.exists() or not listed.read_text().split(), "the end of all")


@shows("state", "state: schema")
def test_state(box: Box) -> None:
    box.config["annotations"] = {"com.example.key": "value", "empty": ""}
    box.create("sleep", "1000")
    state = box.state()
    assert state["id"] == box.id
    assert state["bundle"] == str(box.bundle)
    assert state["annotations"] == {"com.example.key": "value", "empty": ""}
    assert state["ociVersion"].count(".") == 2
    assert {"created", "owner", "rootfs"} <= set(state)
    assert state["created"].endswith("Z")
    if box.runtime.name != "crun":  # which prints what config.json says
        assert state["rootfs"] == str(box.rootfs)


@shows("state", "state: pid 0 of a stopped container")
def test_state_of_a_stopped_container(box: Box) -> None:
    box.detach("true")
    box.wait_for("stopped")
    assert box.state()["pid"] == 0


@shows("delete --regex", differs={"runc": "has none"})
def test_delete_of_all_that_match(box: Box) -> None:
    boxes = [
        Box(box.runtime, box.directory / name, box.rootfs, f"{box.id}-{name}") for name in ("ax", "bx", "by")
    ]
    try:
        for each in boxes:
            each.runtime, each.root = box.runtime, box.root
            each.create("sleep", "1000")
        box.ok("delete", "--force", "--regex", f"{box.id}-.x$")
        left = box.ok("list", "-q").split()
        assert f"{box.id}-by" in left and f"{box.id}-ax" not in left and f"{box.id}-bx" not in left
        if box.runtime.name == "pyrun-oci":
            assert "--regex '['" in box.fails("delete", "--regex", "[")
    finally:
        for each in boxes:
            each.close()


@shows("create --config", "run --config", differs={"runc": "has none"})
@pytest.mark.parametrize("verb", ["create", "run"])
def test_another_file_than_config_json(box: Box, verb: str) -> None:
    """Relative to where the caller is, not to the bundle."""
    box.write("true")
    elsewhere = box.directory / "other.json"
    box.process["args"] = ["sh", "-c", "echo from the other; sleep 1000"]
    elsewhere.write_text(json.dumps(box.config))
    words = ("--bundle", str(box.bundle), "--config", elsewhere.name, box.id)
    box.ok(verb, *(("--detach",) if verb == "run" else ()), *words, cwd=box.directory)
    box._output = box.directory / f"{box._calls}.out"
    if verb == "create":
        box.start()
    assert box.output() == "from the other"
    assert "absent.json" in box.fails(
        verb, "--bundle", str(box.bundle), "--config", "absent.json", f"{box.id}2"
    )


@shows("config: annotations{}")
def test_annotations(box: Box) -> None:
    box.config["annotations"] = {"a.b/c": 'ü " \\ \n'}
    box.create("true")
    assert box.state()["annotations"] == {"a.b/c": 'ü " \\ \n'}


@shows("config: ociVersion")
@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.0"])
def test_oci_version(box: Box, version: str) -> None:
    if version not in ("1.0.0", "1.0.2-dev"):
        box.known_to_differ("crun", "before 1.14.2 it refuses versions it does not know")
    box.config["ociVersion"] = version
    assert box.run("echo", "x") == "x"


@shows("config: ociVersion", "errors: ociVersion", differs={"runc": "no check", "crun": "no check"})
@pytest.mark.parametrize("version", ["", "one", "2.0.0", None, 1])
def test_bad_oci_version(box: Box, version: object) -> None:
    """It must be a version of the specification this runtime can follow."""
    box.config["ociVersion"] = version
    assert "ociVersion" in box.refuses("true")


@shows("config: unknown properties are ignored")
def test_unknown_properties(box: Box) -> None:
    box.config["com.example"] = {"a": 1}
    for place in (box.process, box.linux, box.config["root"], box.resources, box.config["mounts"][0]):
        place["unknownProperty"] = [1, {"x": None}]
    assert box.run("echo", "x") == "x"


@shows("config: other platforms' sections are ignored")
def test_other_platforms(box: Box) -> None:
    box.config["windows"] = {"layerFolders": ["x"]}
    box.config["solaris"] = {"milestone": "x"}
    box.config["freebsd"] = {}
    assert box.run("echo", "x") == "x"


@shows("errors: state is as if the operation were never attempted", "create")
def test_a_failed_create_leaves_nothing(box: Box) -> None:
    box.mount("/data", "nosuchfilesystem", "x")
    box.refuses("true")
    assert not box.cgroup("memory").exists()
    box.config["mounts"].pop()
    assert box.run("echo", json.dumps(box.id)) == json.dumps(box.id)

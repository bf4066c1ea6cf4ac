"""`list`, `ps`, `events`, `features`, `spec`, and the global options."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from oci.box import CGROUP_PARENT, Box
from oci.marks import NEITHER, shows
from waiting import until

RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"


# ── list, ps ───────────────────────────────────────────────────────────────────────────────────────


@shows("list", "list --format")
@pytest.mark.parametrize("flag", ["--format", "-f"])
def test_list_json(box: Box, flag: str) -> None:
    box.config["annotations"] = {"a": "b"}
    box.detach()
    (entry,) = json.loads(box.ok("list", flag, "json"))
    assert entry["id"] == box.id
    assert entry["pid"] == box.pid
    assert entry["status"] == "running"
    assert entry["bundle"] == str(box.bundle)
    assert re.fullmatch(RFC3339, entry["created"])


@shows("list", "list --format")
@pytest.mark.parametrize("words", [("list",), ("list", "--format", "table")])
def test_list_table(box: Box, words: tuple[str, ...]) -> None:
    box.detach()
    head, row = box.ok(*words).splitlines()
    assert head.split()[:4] == ["ID", "PID", "STATUS", "BUNDLE"] or head.split()[0] in ("ID", "NAME")
    assert row.split()[:3] == [box.id, str(box.pid), "running"]


@shows("list --quiet")
@pytest.mark.parametrize("flag", ["--quiet", "-q"])
def test_list_quiet(box: Box, flag: str) -> None:
    box.create("true")
    assert box.ok("list", flag) == box.id


@shows("list", "list: nothing there")
def test_list_of_nothing(box: Box) -> None:
    box.root.mkdir()  # one that was named and is not there is an error
    assert json.loads(box.ok("list", "-f", "json") or "[]") in ([], None)
    assert box.ok("list", "-q") == ""


@shows("list --format", "errors: unknown format", differs={"crun": "no check"})
def test_list_unknown_format(box: Box) -> None:
    box.detach()
    box.fails("list", "--format", "xml")


@shows("ps", "ps --format")
@pytest.mark.parametrize("flag", ["--format", "-f"])
def test_ps_json(box: Box, flag: str) -> None:
    box.detach("sh", "-c", "sleep 994 & wait")
    until(lambda: len(json.loads(box.ok("ps", flag, "json", box.id))) == 2, "two processes")
    assert box.pid in json.loads(box.ok("ps", flag, "json", box.id))


@shows("ps", "ps: words for ps", differs={"crun": "prints pids only"})
def test_ps_table(box: Box) -> None:
    """With ps's own options after the id; the pids are the host's."""
    box.detach("sleep", "993")
    lines = box.ok("ps", box.id).splitlines()
    assert "PID" in lines[0].split()
    assert len(lines) == 2 and "sleep 993" in lines[1] and str(box.pid) in lines[1].split()
    lines = box.ok("ps", box.id, "-o", "pid,comm").splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert lines[1].split() == [str(box.pid), "sleep"]


@shows("ps", "ps: a created container")
def test_ps_of_a_created_container(box: Box) -> None:
    box.create("true")
    assert json.loads(box.ok("ps", "-f", "json", box.id)) == [box.pid]


# ── events ─────────────────────────────────────────────────────────────────────────────────────────


@shows("events", "events --stats", since={"crun": None})
def test_events_stats(box: Box) -> None:
    box.resources["pids"] = {"limit": 77}
    box.resources["memory"] = {"limit": 64 << 20}
    box.detach()
    event = json.loads(box.ok("events", "--stats", box.id))
    assert event["type"] == "stats"
    assert event["id"] == box.id
    data = event["data"]
    assert data["pids"] == {"current": 1, "limit": 77}
    assert data["cpu"]["usage"]["total"] > 0
    assert data["memory"]["usage"]["limit"] == 64 << 20
    assert 0 < data["memory"]["usage"]["usage"] < 64 << 20


@shows("events --interval", "events", since={"crun": None})
def test_events_interval(box: Box) -> None:
    """A stream of one JSON object a line, every interval, until the container ends."""
    box.detach()
    out = box.directory / "events"
    with open(out, "wb") as stream:
        process = box.background("events", "--interval", "100ms", box.id, stdout=stream)
    until(lambda: out.read_text().count("\n") >= 3, "three events")
    assert {json.loads(line)["type"] for line in out.read_text().splitlines()[:3]} == {"stats"}
    process.kill()


@shows("events", "events: out of memory", since={"crun": None})
def test_events_oom(box: Box) -> None:
    """Told at once, not at the next interval. It happens again and again: the watcher may come late to the first."""
    box.resources["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    box.detach("sh", "-c", "while :; do (tail -c 100m /dev/zero >/dev/null); sleep 0.2; done")
    out = box.directory / "events"
    with open(out, "wb") as stream:
        process = box.background("events", "--interval", "1h", box.id, stdout=stream)
    until(lambda: '"oom"' in out.read_text(), "the event")
    assert {"type": "oom", "id": box.id}.items() <= json.loads(out.read_text().splitlines()[0]).items()
    process.kill()


@shows("events", "errors: events of a stopped container", since={"crun": None})
def test_events_of_a_stopped_container(box: Box) -> None:
    box.detach("true")
    box.wait_for("stopped")
    box.fails("events", "--stats", box.id)


# ── features, spec ─────────────────────────────────────────────────────────────────────────────────


@shows("features", "features: schema", since={"runc": "1.1", "crun": "1.8.6"})
def test_features(box: Box) -> None:
    features = json.loads(box.ok("features"))
    assert features["ociVersionMin"] <= "1.0.2"
    assert set(features["hooks"]) >= {"prestart", "createRuntime", "createContainer", "startContainer",
                                      "poststart", "poststop"}  # fmt: skip
    assert {"bind", "ro", "rprivate", "rro", "tmpcopyup"} <= set(features["mountOptions"])
    linux = features["linux"]
    assert {"pid", "network", "mount", "ipc", "uts", "user", "cgroup"} <= set(linux["namespaces"])
    assert "CAP_SYS_ADMIN" in linux["capabilities"]
    assert linux["cgroup"]["v1"] is True
    assert linux["seccomp"]["enabled"] is True
    assert "SCMP_ACT_ERRNO" in linux["seccomp"]["actions"]
    assert "SCMP_ARCH_X86_64" in linux["seccomp"]["archs"]


@shows("spec", "spec --bundle")
@pytest.mark.parametrize("flag", ["--bundle", "-b"])
def test_spec(box: Box, flag: str) -> None:
    """What `spec` writes can be run, but for the terminal it asks for."""
    box.ok("spec", flag, str(box.bundle))
    path = box.bundle / "config.json"
    config = json.loads(path.read_text())
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    assert config["root"] == {"path": "rootfs", "readonly": True}
    config["process"]["terminal"] = False
    path.write_text(json.dumps(config))
    assert box.ok("run", box.id, input="echo $((1 + 2))\n") == "3"


@shows("spec", "errors: spec does not overwrite")
def test_spec_does_not_overwrite(box: Box) -> None:
    box.ok("spec", cwd=box.bundle)
    box.fails("spec", cwd=box.bundle)


@shows("spec --rootless", differs={"crun": "keeps the network namespace"})
def test_spec_rootless(box: Box) -> None:
    box.ok("spec", "--rootless")
    config = json.loads((box.bundle / "config.json").read_text())
    kinds = {each["type"] for each in config["linux"]["namespaces"]}
    assert "user" in kinds and "network" not in kinds
    assert config["linux"]["uidMappings"][0] == {"containerID": 0, "hostID": os.getuid(), "size": 1}
    assert not config["linux"].get("resources")


# ── global options ─────────────────────────────────────────────────────────────────────────────────


@shows("global --root")
def test_root(box: Box) -> None:
    """Each root has containers of its own."""
    other = box.directory / "other"
    box.detach()
    assert (box.root / box.id).is_dir()
    box.fails("state", box.id, globals_=("--root", str(other)))
    assert box.ok("list", "-q", globals_=("--root", str(box.root))) == box.id


@shows("global --root", "global --root: with a line break in it", since=NEITHER)
@pytest.mark.parametrize("letter", ["\n", "\t"])
def test_a_root_that_no_undo_list_can_name(box: Box, letter: str) -> None:
    """Of `a<newline>b` the list would remove `a`, somebody else's."""
    (box.directory / "a").mkdir()
    box.write("sleep", "1000")
    root = ("--root", f"{box.directory}/a{letter}b")
    assert "must hold no tab and no line break" in box.fails("create", box.id, globals_=root)
    box.fails("delete", "--force", box.id, globals_=root)
    assert (box.directory / "a").is_dir()


@shows("global --log", "global --log-format")
def test_log_json(box: Box) -> None:
    """Engines read the last error from here: one JSON object a line."""
    log = box.directory / "log"
    done = box.call("start", "absent", globals_=("--log", str(log), "--log-format", "json"))
    assert done.status != 0
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    (entry,) = [each for each in entries if each["level"] == "error"]
    assert entry["msg"] and "\n" not in entry["msg"]
    assert re.fullmatch(RFC3339, entry["time"])


@shows("global --log", "global --log-format")
def test_log_text(box: Box) -> None:
    log = box.directory / "log"
    box.call("start", "absent", globals_=("--log", str(log), "--log-format=text"))
    assert log.read_text().strip()


@shows("global --log", "global --log: the error is on standard error too")
def test_error_is_on_stderr_too(box: Box) -> None:
    """podman and containerd without a log file show this."""
    done = box.call("start", "absent", globals_=("--log", str(box.directory / "log")))
    assert done.err.strip()


@shows("global --log", "global --log: appends")
def test_log_appends(box: Box) -> None:
    log = box.directory / "log"
    log.write_text("before\n")
    box.call("start", "absent", globals_=("--log", str(log)))
    assert log.read_text().startswith("before\n") and log.read_text().count("\n") > 1


@shows("global --log-format", "errors: unknown log format")
def test_unknown_log_format(box: Box) -> None:
    box.fails("list", globals_=("--log-format", "xml"))


@shows("global --debug")
def test_debug(box: Box) -> None:
    log = box.directory / "log"
    box.write("true")
    box.ok("run", box.id, globals_=("--debug", "--log", str(log), "--log-format", "json"))
    levels = {json.loads(line)["level"] for line in log.read_text().splitlines()}
    assert "debug" in levels or box.runtime.name == "crun"


@shows("global --version", "global --help")
def test_version_and_help(box: Box) -> None:
    for flag in ("--version", "-v"):
        out = box.ok(flag)
        assert re.search(r"^(pyrun-oci|runc|crun) version \d+\.\d+", out, re.MULTILINE)
        assert re.search(r"^spec: 1\.\d+\.\d+", out, re.MULTILINE)
    for flag in ("--help",):
        assert "create" in box.ok(flag)
    assert "--pid-file" in box.ok("create", "--help")


@shows("global --rootless")
@pytest.mark.parametrize("value", ["true", "false", "auto"])
def test_rootless_flag(box: Box, value: str) -> None:
    if value == "true":
        box.known_to_differ("crun", "takes the machine's cgroups for a user's then")
    box.write("echo", "x")
    assert box.ok("run", box.id, globals_=(f"--rootless={value}",)) == "x"


@shows("global --cgroup-manager", since={"runc": None})
@pytest.mark.parametrize("manager", ["cgroupfs", "disabled"])
def test_cgroup_manager(box: Box, manager: str) -> None:
    """crun's option: `disabled` makes no cgroup."""
    if manager == "disabled":
        del box.linux["cgroupsPath"], box.linux["resources"]
        box.known_to_differ("crun", "1.8 still wants to write the limits")
    box.write("sleep", "1000")
    box.ok("run", "-d", box.id, globals_=("--cgroup-manager", manager))
    own = Path("/proc/self/cgroup").read_text()
    theirs = Path(f"/proc/{box.pid}/cgroup").read_text()
    assert (CGROUP_PARENT in theirs) == (manager == "cgroupfs")
    assert manager == "cgroupfs" or own == theirs


@shows("global --systemd-cgroup")
@pytest.mark.needs("systemd")
def test_systemd_cgroup(box: Box) -> None:
    box.linux["cgroupsPath"] = f"system.slice:conformance:{box.id}"
    box.resources["pids"] = {"limit": 99}
    box.write("sleep", "1000")
    box.ok("run", "-d", box.id, globals_=("--systemd-cgroup",))
    assert f"/system.slice/conformance-{box.id}.scope" in Path(f"/proc/{box.pid}/cgroup").read_text()


@shows("errors: unknown verb and unknown flag")
def test_unknown_words(box: Box) -> None:
    assert box.call("nosuchverb").status != 0
    assert box.call("create", "--no-such-flag", box.id).status != 0
    assert box.call("list", globals_=("--no-such-flag",)).status != 0


@shows("checkpoint", "restore")
@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_checkpoint_and_restore(box: Box, verb: str) -> None:
    """Not offered: a clear error and an untouched container."""
    box.detach()
    error = box.fails(verb, box.id) if box.runtime.name == "pyrun-oci" else "checkpoint restore"
    assert verb in error
    assert box.status == "running"

"""The catalogue's command lines: hooks, the lifecycle, exec, what is only told. See observing.py."""

from __future__ import annotations

import json
import re
import stat

from oci.box import Box
from oci.observing import YOUNGER, Facts, called, crun, entry, named, ran, runc, running
from waiting import until

# ── hooks ──────────────────────────────────────────────────────────────────────────────────────────

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@entry(
    runc("runtime-spec 1.3, lifecycle: the container is running by then", "poststart: status"),
    crun("a field that the specification has not; poststop has no process any more", "*: keys"),
    crun("the specification says creating, and created for startContainer", "*: status"),
    crun("runs it where the bundle is; the container's root is runc's", "createContainer: cwd"),
    crun(
        "tells no pid, and the container's / as the bundle, to hooks inside",
        "createContainer: pid",
        "startContainer: pid",
        "startContainer: bundle",
    ),
)
def hooks(box: Box) -> Facts:
    """Who calls them how: environment, directory, state."""
    log = box.rootfs / "log"
    log.mkdir(mode=0o777)
    for kind in KINDS:
        place = "/log" if kind == "startContainer" else str(log)
        asked = {"state": "cat", "env": "env", "cwd": "pwd", "umask": "umask"}
        tell = "; ".join(f"{command} >{place}/{kind}.{what}" for what, command in asked.items())
        box.config.setdefault("hooks", {})[kind] = [
            {"path": "/bin/sh", "args": ["sh", "-c", tell], "env": ["PATH=/bin:/usr/bin", "HOOK=1"]}
        ]
    box.config["annotations"] = {"org.example": "yes"}
    facts = ran(box, "true")
    for kind in KINDS:
        read = lambda what, kind=kind: (log / f"{kind}.{what}").read_text()  # noqa: E731
        state = json.loads(read("state"))
        facts |= {
            f"{kind}: keys": sorted(state),
            f"{kind}: status": state["status"],
            f"{kind}: pid": state.get("pid", 0) > 0,
            f"{kind}: bundle": state["bundle"],
            f"{kind}: annotations": state.get("annotations"),
            f"{kind}: environment": sorted(
                each
                for each in read("env").split("\n")
                if each and not each.startswith(("PWD=", "SHLVL=", "_="))
            ),
            f"{kind}: cwd": read("cwd").strip(),
            f"{kind}: umask": read("umask").strip(),
        }
    return facts


@entry(
    crun("does not end for it; runtime-spec 1.3 and runc do", "poststart: *"),
    crun("does not say that it was a hook", "poststop: says hook"),
    crun("runc's status", "prestart: status", "createRuntime: status"),
)
def hooks_that_fail(box: Box) -> Facts:
    facts: Facts = {}
    for kind in KINDS:
        box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]}
        sleep = "sleep 1; " if kind == "poststart" else ""
        facts |= named(kind, ran(box, f"{sleep}echo it ran", "hook"))
        facts |= named(f"{kind}: then state", {"status": box.call("state", box.id).status})
        box.call("delete", "--force", box.id)
    return facts


# ── the lifecycle ──────────────────────────────────────────────────────────────────────────────────


def state(box: Box) -> Facts:
    found = box.state()
    return {
        "keys": sorted(found),
        "status": found["status"],
        "pid": found["pid"] > 0,
        "bundle": found["bundle"],
        "rootfs": found.get("rootfs"),
        "version": found["ociVersion"],
        "annotations": found.get("annotations"),
        "owner": found.get("owner"),
    }


@entry(
    runc("the version that the runtime was made for, not the config's", "*: version"),
    crun("the version that the runtime was made for, not the config's", "*: version"),
    crun("its own field", "*: keys"),
    crun("runc's root and owner: absolute, and empty where the name is not known", "*: rootfs", "*: owner"),
)
def states(box: Box) -> Facts:
    box.config["annotations"] = {"org.example": "yes"}
    box.create("sleep", "1000")
    facts = named("created", state(box))
    box.start()
    facts |= named("running", state(box))
    box.ok("pause", box.id)
    facts |= named("paused", state(box))
    box.ok("resume", box.id)
    box.ok("kill", box.id, "KILL")
    box.wait_for("stopped")
    return facts | named("stopped", state(box))


@entry(
    crun("words of its own; scripts look for runc's", "*: says*"),
    crun("runc's status", "exec: status", "ps: status"),
)
def a_container_that_is_not_there(box: Box) -> Facts:
    box.write("true")
    lines = [
        ("state",),
        ("start",),
        ("kill",),
        ("delete",),
        ("delete", "--force"),
        ("pause",),
        ("resume",),
        ("ps",),
    ]
    facts: Facts = {}
    for words in lines:
        facts |= named(" ".join(words), called(box, *words, box.id, words=("does not exist",)))
    facts |= named("exec", called(box, "exec", box.id, "true", words=("does not exist",)))
    return facts


@entry(crun("takes a blank in a name", "with space"))
def names_that_are_none(box: Box) -> Facts:
    box.write("true")
    facts: Facts = {}
    for name in ("", "../up", "a/b", "with space", "x" * 300):
        done = box.call("create", name)
        facts[name[:10]] = done.status
        box.call("delete", "--force", name) if not done.status else None
    return facts


@entry(crun("words of its own", "start: says*"))
def twice_the_same(box: Box) -> Facts:
    running(box)
    facts = named("create", called(box, "create", box.id, words=("exist",)))
    facts |= named("start", called(box, "start", box.id, words=("running",)))
    return facts | {"then": box.status}


@entry(
    crun("words of its own", "*: says*"),
    crun("runc's status", "exec ID true: status"),
    crun("crashes", "ps ID: status", "ps ID: out"),
)
def stopped_ones(box: Box) -> Facts:
    running(box, "true")
    box.wait_for("stopped")
    facts: Facts = {}
    for words in [("kill", box.id), ("kill", box.id, "0"), ("kill", "--all", box.id, "KILL"), ("start", box.id),
                  ("pause", box.id), ("exec", box.id, "true"), ("ps", box.id)]:  # fmt: skip
        facts |= named(
            " ".join(words).replace(box.id, "ID"), called(box, *words, words=("not running", "stopped"))
        )
    return facts | named("delete", called(box, "delete", box.id))


@entry(crun("takes a word for signal 0 that is none", "'NOSUCH': status"))
def signals(box: Box) -> Facts:
    running(box, "sh", "-c", "trap 'echo got usr1' USR1; while true; do sleep 0.05; done")
    facts: Facts = {}
    for signal in ("SIGUSR1", "usr1", "10", "NOSUCH", "0", "99", ""):
        facts |= named(f"{signal!r}", {"status": box.call("kill", box.id, signal).status})
    return facts | {"it got them": box.output()[:8]}


@entry(
    crun("words of its own", "*: says*"),
    crun("runc's status", "exec: status"),
    crun("nothing happens, and that is fine with it; runc says that it is paused", "pause: status"),
)
def paused_ones(box: Box) -> Facts:
    running(box)
    box.ok("pause", box.id)
    facts = named("pause", called(box, "pause", box.id))
    facts |= named("exec", called(box, "exec", box.id, "true", words=("paused",)))
    facts |= named("delete", called(box, "delete", box.id, words=("not stopped",)))
    facts |= named("kill", called(box, "kill", box.id, "KILL"))
    facts |= named("delete --force", called(box, "delete", "--force", box.id))
    return facts | {"left": box.call("state", box.id).status}


@entry(crun("words of its own", "running: says*"))
def deleted_ones(box: Box) -> Facts:
    running(box)
    facts = named("running", called(box, "delete", box.id, words=("not stopped",)))
    facts |= named("forced", called(box, "delete", "-f", box.id))
    box.create("true")
    facts |= named("created", called(box, "delete", box.id))
    box.call("delete", "-f", box.id)
    return facts


@entry(
    runc("a --root that is given and not there is an error since 1.2", "none*"),
    crun("a --root that is not there has no containers", "none*"),
    crun("columns and keys of its own; engines read runc's", "columns", "keys"),
)
def lists(box: Box) -> Facts:
    facts = named("none", called(box, "list", "-q")) | named("none, JSON", called(box, "list", "-f", "json"))
    running(box)
    facts |= named("quiet", called(box, "list", "-q"))
    (found,) = json.loads(box.ok("list", "--format", "json"))
    facts |= {"keys": sorted(found), "status": found["status"], "bundle": found["bundle"]}
    head = box.ok("list").splitlines()[0]
    return facts | {"columns": head.split()} | named("format", called(box, "list", "--format", "xml"))


@entry(crun("only the pids, and nothing for ps(1)", "columns", "as asked"))
def processes(box: Box) -> Facts:
    running(box, "sh", "-c", "sleep 1000 & sleep 1000")
    until(lambda: len(json.loads(box.ok("ps", "--format", "json", box.id))) == 2, "two of them")
    pids = json.loads(box.ok("ps", "-f", "json", box.id))
    table = box.ok("ps", box.id).splitlines()
    return {
        "first": box.pid in pids,
        "columns": table[0].split(),
        "lines": len(table),
        "as asked": [line.split()[0] for line in called(box, "ps", box.id, "-o", "pid")["out"]][:1],  # type: ignore[attr-defined]
    }


@entry(crun("an executable for root alone", "mode"))
def a_file_for_the_pid(box: Box) -> Facts:
    file = box.directory / "pid"
    box.detach(options=("--pid-file", str(file)))
    return {
        "text": file.read_text().replace(str(box.pid), "PID"),
        "mode": oct(stat.S_IMODE(file.stat().st_mode)),
    }


@entry()
def limits_of_its_cgroup(box: Box) -> Facts:
    box.linux["resources"] |= {
        "pids": {"limit": 77},
        "memory": {"limit": 64 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    }
    running(box)
    names = [
        ("pids", "pids.max"),
        ("memory", "memory.limit_in_bytes"),
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
    ]
    facts: Facts = {name: box.limit(group, name) for group, name in names if box.cgroup(group).exists()}
    facts |= named(
        "update",
        called(box, "update", "--pids-limit", "50", "--memory", "134217728", "--cpu-share", "256", box.id),
    )
    facts |= {
        f"{name}, updated": box.limit(group, name) for group, name in names if box.cgroup(group).exists()
    }
    again = called(box, "update", "-r", "-", box.id, input='{"pids": {"limit": 40}}')
    return facts | named("update from a file", again) | {"pids.max at last": box.limit("pids", "pids.max")}


# ── exec ───────────────────────────────────────────────────────────────────────────────────────────

SEEN = (
    "pwd; id -u; id -g; id -G; env | grep -E 'NEW|PATH|HOME|TERM' | sort;"
    "grep -E '^(Cap|NoNew)' /proc/self/status; umask"
)


@entry(
    runc("the umask of the config is for the container's first process alone", "out"),
    crun("takes neither directory, groups, umask nor no_new_privs from the config", "out"),
)
def exec_as_the_container_is(box: Box) -> Facts:
    box.process["user"] = {"uid": 0, "gid": 0, "umask": 0o77, "additionalGids": [9]}
    box.process["cwd"] = "/etc"
    running(box)
    return called(box, "exec", box.id, "sh", "-c", SEEN)


@entry(crun("has no --additional-gids", "out", "status"))
def exec_with_options(box: Box) -> Facts:
    running(box)
    options = [
        "--cwd",
        "/data",
        "--env",
        "NEW=1",
        "--env",
        "PATH=/bin",
        "--user",
        "1000:7",
        "-g",
        "8",
        "--cap",
        "CAP_CHOWN",
    ]
    return called(box, "exec", *options, box.id, "sh", "-c", SEEN)


@entry(crun("sets no HOME", "out"))
def exec_of_a_process(box: Box) -> Facts:
    running(box)
    file = box.directory / "process.json"
    file.write_text(json.dumps({"args": ["sh", "-c", SEEN], "cwd": "/tmp", "env": ["PATH=/bin", "NEW=2"],
                                "user": {"uid": 3, "gid": 4, "additionalGids": [5]}}))  # fmt: skip
    return called(box, "exec", "--process", str(file), box.id)


@entry(crun("runc's status", "nobody's name", "nothing"))
def exec_and_its_status(box: Box) -> Facts:
    (box.rootfs / "data/plain").write_text("#!/bin/sh\n")
    running(box)
    cases = {"9": ["sh", "-c", "exit 9"], "signal": ["sh", "-c", "kill -9 $$"], "absent": ["/bin/absent"],
             "absent by name": ["absent"], "not executable": ["/data/plain"]}  # fmt: skip
    facts: Facts = {name: box.call("exec", box.id, *words).status for name, words in cases.items()}
    facts["no directory"] = box.call("exec", "--cwd", "/absent", box.id, "true").status
    facts["nobody's name"] = box.call("exec", "--user", "absent", box.id, "true").status
    facts["nothing"] = box.call("exec", box.id).status
    return facts


# ── terminals, descriptors ─────────────────────────────────────────────────────────────────────────


@entry()
def terminals_without_a_console(box: Box) -> Facts:
    box.process["terminal"] = True
    box.write("true")
    facts = named("create", called(box, "create", box.id))
    facts |= named("detached", called(box, "run", "-d", box.id))
    box.process["terminal"] = False
    box.write("true")
    return facts | named("console, no terminal", called(box, "create", "--console-socket", "/absent", box.id))


@entry()
def descriptors_of_the_caller(box: Box) -> Facts:
    box.write("sh", "-c", "ls /proc/$$/fd; env | grep LISTEN")
    opened = ("sh", "-c", 'exec 3</dev/null; exec "$@"', "sh")
    return called(box, "run", "--preserve-fds", "1", box.id, prefix=opened)


# ── other command lines ────────────────────────────────────────────────────────────────────────────


@entry()
def lines_that_are_wrong(box: Box) -> Facts:
    box.write("true")
    lines = [("fly",), ("run",), ("run", "a", "b"), ("run", "--nosuch", box.id), ("state",),
             ("kill", box.id, "9", "10"), ("--nosuch", "list"), ("list", "extra"), ("delete",), ("exec",),
             ("exec", box.id), ("start",)]  # fmt: skip
    return {" ".join(words).replace(box.id, "ID"): box.call(*words).status != 0 for words in lines}


@entry()
def the_version(box: Box) -> Facts:
    first, *rest = box.ok("--version").splitlines()
    return {
        "first line": re.fullmatch(r"(runc|crun|pyrun-oci) version [\w.+~-]+", first) is not None,
        "the specification's": any(line.startswith("spec: 1.") for line in rest),
    }


@entry(runc(YOUNGER, "keys", "namespaces", "of linux"), crun("has none yet", "*"))
def features(box: Box) -> Facts:
    done = box.call("features")
    found = json.loads(done.out) if done.status == 0 else {}
    section = found.get("linux", {})
    return {
        "status": done.status,
        "keys": sorted(found),
        "of linux": sorted(section),
        "hooks": sorted(found.get("hooks") or []),
        "namespaces": sorted(section.get("namespaces") or []),
    }


@entry(
    runc("ambient ones are none since 1.2", "capabilities"),
    crun("ambient ones, as runc before 1.2", "capabilities"),
)
def a_template(box: Box) -> Facts:
    place = box.directory / "template"
    place.mkdir()
    facts = called(box, "spec", cwd=place)
    config = json.loads((place / "config.json").read_text())
    facts |= named("again", called(box, "spec", cwd=place))
    process, section = config["process"], config["linux"]
    return facts | {
        "keys": sorted(config),
        "process": sorted(process),
        "args": process["args"],
        "terminal": process["terminal"],
        "capabilities": {kind: sorted(names) for kind, names in process["capabilities"].items()},
        "rlimits": process["rlimits"],
        "root": config["root"],
        "mounts": sorted(each["destination"] for each in config["mounts"]),
        "linux": sorted(section),
        "namespaces": sorted(each["type"] for each in section["namespaces"]),
        "masked": sorted(section["maskedPaths"]),
        "read-only": sorted(section["readonlyPaths"]),
        "mode": oct(stat.S_IMODE((place / "config.json").stat().st_mode)),
    }


@entry(crun("has none", "*"))
def events(box: Box) -> Facts:
    running(box)
    done = box.call("events", "--stats", box.id)
    found = json.loads(done.out) if done.status == 0 else {}
    return {
        "status": done.status,
        "keys": sorted(found),
        "type": found.get("type"),
        "data": sorted(found.get("data", {})),
    }

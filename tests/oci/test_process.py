"""config.json: `root`, `process`, `hostname`, `domainname`."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

import capabilities
from oci import terminal
from oci.box import PATH, SPEC_CAPABILITIES, Box
from oci.marks import rows, shows

SELINUX_LABEL = "system_u:system_r:container_t:s0:c1,c2"
INFINITY = 2**64 - 1


# ── root ───────────────────────────────────────────────────────────────────────────────────────────


@shows("config: root.path")
@pytest.mark.parametrize("relative", [True, False])
def test_root_path(box: Box, relative: bool) -> None:
    """Absolute, or relative to the bundle."""
    (box.rootfs / "etc/mark").write_text("here")
    box.config["root"]["path"] = "rootfs" if relative else str(box.rootfs)
    assert box.run("cat", "/etc/mark", cwd="/") == "here"


@shows("config: root.path", "errors: root.path is no directory")
@pytest.mark.parametrize("path", ["absent", "config.json"])
def test_root_path_must_be_there(box: Box, path: str) -> None:
    box.config["root"]["path"] = path
    box.refuses("true")


@shows("config: root.readonly")
@pytest.mark.parametrize("readonly", [True, False])
def test_root_readonly(box: Box, readonly: bool) -> None:
    box.config["root"]["readonly"] = readonly
    out = box.sh("touch /data/x && echo written; awk '$5 == \"/\" {print $6}' /proc/self/mountinfo; true")
    assert ("written" in out) != readonly
    assert out.splitlines()[-1].startswith("ro" if readonly else "rw")


# ── process ────────────────────────────────────────────────────────────────────────────────────────


@shows("config: process.args[]")
def test_args(box: Box) -> None:
    """The first word is looked up along PATH; all are handed on as they are."""
    words = ["", " ", "ü", "a\nb", "$A", "*"]
    box.write("sh", "-c", 'printf "%s|" "$0" "$@"', *words)
    assert box.run(*box.process["args"]) == "|".join(words) + "|"


@shows("config: process.args[]", "errors: no args", differs={"crun": "runs sh"})
@pytest.mark.parametrize("args", [[], None])
def test_args_are_needed(box: Box, args: list[str] | None) -> None:
    box.process["args"] = args
    box.write()
    if box.call("create", box.id).status == 0:
        box.fails("start", box.id)


@shows("config: process.args[]", "process: a script with a relative name")
def test_args_relative(box: Box) -> None:
    """A name with a slash is relative to the working directory."""
    (box.rootfs / "data/prog").write_text("#!/bin/sh\necho relative\n")
    (box.rootfs / "data/prog").chmod(0o755)
    box.process["cwd"] = "/data"
    assert box.run("./prog") == "relative"


@shows("config: process.env[]")
def test_env(box: Box) -> None:
    """Exactly these and in this order; HOME is added when it is not there."""
    box.process["env"] = [PATH, "B=2", "A=1", "EMPTY=", "EQ=a=b"]
    lines = box.run("env").splitlines()
    assert [line for line in lines if not line.startswith("HOME=")] == box.process["env"]


@shows("config: process.env[]", "process: HOME", differs={"crun": "/root only"})
@pytest.mark.parametrize(("uid", "home"), [(0, "/root"), (1000, "/data"), (4242, "/")])
def test_home(box: Box, uid: int, home: str) -> None:
    """The container's own passwd file decides; no entry: /."""
    box.process["user"] = {"uid": uid, "gid": 0}
    assert box.sh("echo $HOME") == home


@shows("process: HOME", differs={"crun": "/root only"})
def test_home_by_a_passwd_file_that_is_mounted(box: Box) -> None:
    """As `-v /etc/passwd:/etc/passwd -u 1000` has it."""
    (box.directory / "passwd").write_text("me:x:1000:1000::/mnt:/bin/sh\n")
    box.bind("/etc/passwd", box.directory / "passwd", "ro")
    box.process["user"] = {"uid": 1000, "gid": 0}
    assert box.sh("echo $HOME") == "/mnt"


@shows("config: process.cwd")
def test_cwd(box: Box) -> None:
    box.process["cwd"] = "/var"
    assert box.run("pwd") == "/var"


@shows("config: process.cwd", "process: a cwd that is not there is made")
def test_cwd_is_made(box: Box) -> None:
    box.process["cwd"] = "/made/for/you"
    assert box.run("pwd") == "/made/for/you"


@shows("config: process.cwd", "errors: a relative cwd", differs={"crun": "takes it"})
@pytest.mark.parametrize("cwd", ["", "tmp", None])
def test_cwd_is_absolute(box: Box, cwd: str | None) -> None:
    box.process["cwd"] = cwd
    box.refuses("true")


@shows("config: process.cwd", "process: a cwd that only the user may enter")
def test_cwd_of_the_user(box: Box) -> None:
    """runc and crun enter it as root first, as the user second; a container of an engine's user works."""
    home = box.rootfs / "data/home"
    home.mkdir(mode=0o700)
    os.chown(home, 1000, 1000)
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["cwd"] = "/data/home"
    assert box.run("pwd") == "/data/home"


@shows("config: process.consoleSize.height", "config: process.consoleSize.width", "config: process.terminal")
def test_console_size(box: Box) -> None:
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 33, "width": 77}
    with terminal.Listener(box.directory / "console") as console:
        box.create("stty", "size", options=("--console-socket", str(console.path)))
        master = console.receive()
        assert terminal.window_size(master) == (33, 77)
        box.start()
        assert terminal.read_terminal(master, "\n") == "33 77\n"


@shows("config: process.consoleSize.height", "process: consoleSize without a terminal is ignored")
def test_console_size_without_a_terminal(box: Box) -> None:
    box.process["consoleSize"] = {"height": 33, "width": 77}
    assert box.run("echo", "x") == "x"


@shows("config: process.terminal", "devices: /dev/console with a terminal")
def test_dev_console(box: Box) -> None:
    box.process["terminal"] = True
    with terminal.Listener(box.directory / "console") as console:
        script = "test -c /dev/console && echo via console >/dev/console; sleep 1000"
        box.detach("sh", "-c", script, options=("--console-socket", str(console.path)))
        assert "via console" in terminal.read_terminal(console.receive(), "console\n")


@shows("config: process.terminal", "process: with a terminal it leads a session of its own")
def test_terminal_is_the_controlling_one(box: Box) -> None:
    box.process["terminal"] = True
    with terminal.Listener(box.directory / "console") as console:
        box.detach(
            "sh", "-c", "echo on tty >/dev/tty; sleep 1000", options=("--console-socket", str(console.path))
        )
        assert terminal.read_terminal(console.receive(), "\n") == "on tty\n"


# ── user ───────────────────────────────────────────────────────────────────────────────────────────


@shows("config: process.user.uid", "config: process.user.gid")
def test_user(box: Box) -> None:
    box.process["user"] = {"uid": 12, "gid": 34}
    out = box.run("grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status").split()
    assert out[1:5] == ["12"] * 4 and out[6:10] == ["34"] * 4
    assert "0" not in out[11:]


@shows("config: process.user.additionalGids[]")
def test_additional_gids(box: Box) -> None:
    box.process["user"] = {"uid": 1, "gid": 2, "additionalGids": [5, 7]}
    groups = box.run("grep", "Groups", "/proc/self/status").split()[1:]
    assert groups in (["5", "7"], ["2", "5", "7"])


@shows("config: process.user.umask")
def test_umask(box: Box) -> None:
    box.process["user"]["umask"] = 0o27
    assert box.sh("umask") == "0027"


@shows("config: process.user.umask", "process: without umask")
def test_umask_unset(box: Box) -> None:
    box.write("sh", "-c", "umask")
    done = box.call("run", box.id, prefix=("sh", "-c", 'umask 0037; exec "$@"', "sh"))
    assert done.out in ("0022\n", "0037\n")  # the caller's SHOULD stay; runc and crun always set 0022


# ── capabilities, privileges ───────────────────────────────────────────────────────────────────────


def _sets(box: Box) -> dict[str, int]:
    lines = box.run("grep", "^Cap", "/proc/self/status").splitlines()
    return {line[3:6]: int(line.split()[1], 16) for line in lines}


@shows("config: process.capabilities.bounding[]", "config: process.capabilities.permitted[]",
       "config: process.capabilities.effective[]")  # fmt: skip
def test_capabilities(box: Box) -> None:
    box.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"],
    }
    box.process["user"] = {"uid": 9, "gid": 9}  # root's exec would raise the sets to the bounding set
    sets = _sets(box)
    assert sets["Bnd"] == 1 << 0 | 1 << 5 | 1 << 13
    assert sets["Prm"] == sets["Eff"] == sets["Inh"] == sets["Amb"] == 0


@shows("config: process.capabilities.ambient[]", "config: process.capabilities.inheritable[]",
       "config: process.capabilities.effective[]", "config: process.capabilities.permitted[]")  # fmt: skip
def test_ambient_capabilities(box: Box) -> None:
    box.process["user"] = {"uid": 9, "gid": 9}
    names = ["CAP_KILL", "CAP_CHOWN"]
    box.process["capabilities"] = dict.fromkeys(
        ("bounding", "permitted", "effective", "inheritable"), names
    ) | {"ambient": ["CAP_KILL"]}
    sets = _sets(box)
    assert sets["Amb"] == sets["Prm"] == sets["Eff"] == 1 << 5
    assert sets["Inh"] == 1 << 5 | 1 << 0


@shows("config: process.capabilities.effective[]", "process: root has the bounding set")
def test_capabilities_of_root(box: Box) -> None:
    mask = sum(
        1 << {"CAP_AUDIT_WRITE": 29, "CAP_KILL": 5, "CAP_NET_BIND_SERVICE": 10}[n] for n in SPEC_CAPABILITIES
    )
    assert {kind: value for kind, value in _sets(box).items() if kind != "Inh"} == {
        "Prm": mask, "Eff": mask, "Bnd": mask, "Amb": 0,
    }  # fmt: skip


@shows("config: process.capabilities.bounding[]", "process: without capabilities there are none")
def test_no_capabilities(box: Box) -> None:
    del box.process["capabilities"]
    box.process["user"] = {"uid": 9, "gid": 9}
    sets = _sets(box)
    assert sets["Eff"] == sets["Prm"] == sets["Amb"] == 0


@shows("config: process.capabilities.bounding[]", "warnings: capabilities that are not known",
       differs={"crun": "an error"})  # fmt: skip
def test_unknown_capability(box: Box) -> None:
    """A warning and no failure."""
    box.capabilities("CAP_KILL", "CAP_NO_SUCH_THING")
    assert _sets(box)["Bnd"] == 1 << 5


@shows("config: process.noNewPrivileges")
@pytest.mark.parametrize("value", [True, False])
def test_no_new_privileges(box: Box, value: bool) -> None:
    box.process["noNewPrivileges"] = value
    assert box.run("grep", "NoNewPrivs", "/proc/self/status").split()[1] == str(int(value))


@shows("config: process.apparmorProfile")
@pytest.mark.needs("apparmor")
def test_apparmor(box: Box) -> None:
    box.process["apparmorProfile"] = "unconfined"
    assert box.run("cat", "/proc/self/attr/current") == "unconfined"


@shows(
    "config: process.apparmorProfile",
    "errors: AppArmor is not there",
    differs={"crun": "ignored"},
    absent=True,
)
def test_apparmor_is_not_there(box: Box) -> None:
    if Path("/sys/kernel/security/apparmor/profiles").exists():
        box.process["apparmorProfile"] = "no-such-profile"
    else:
        box.process["apparmorProfile"] = "some-profile"
    box.write("true")
    if box.call("create", box.id).status == 0:
        box.fails("start", box.id)


@shows("config: process.selinuxLabel")
@pytest.mark.needs("selinux")
def test_selinux(box: Box) -> None:
    box.process["selinuxLabel"] = SELINUX_LABEL
    assert box.run("cat", "/proc/self/attr/current").strip("\0") == SELINUX_LABEL


@shows(
    "config: process.selinuxLabel", "errors: SELinux is not there", differs={"crun": "ignored"}, absent=True
)
@pytest.mark.needs("no_selinux")
def test_selinux_is_not_there(box: Box) -> None:
    box.process["selinuxLabel"] = SELINUX_LABEL
    box.refuses("true")


# ── limits, scheduling ─────────────────────────────────────────────────────────────────────────────

RLIMITS = {
    "AS": "address space", "CORE": "core file", "CPU": "cpu time", "DATA": "data size", "FSIZE": "file size",
    "LOCKS": "file locks", "MEMLOCK": "locked memory", "MSGQUEUE": "msgqueue size", "NICE": "nice priority",
    "NOFILE": "open files", "NPROC": "processes", "RSS": "resident set", "RTPRIO": "realtime priority",
    "RTTIME": "realtime timeout", "SIGPENDING": "pending signals", "STACK": "stack size",
}  # fmt: skip


@shows("config: process.rlimits[].type", "config: process.rlimits[].soft", "config: process.rlimits[].hard")
@pytest.mark.parametrize("name", rows("config: process.rlimits[].type=RLIMIT_", *RLIMITS))
def test_rlimits(box: Box, name: str) -> None:
    """A little below what the caller has, so that no privilege is needed."""
    # LOCKS (10) is not in Python's module
    _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}", 10))
    hard = (1 << 30) if hard == resource.RLIM_INFINITY else min(hard, 4096)
    soft = hard // 2
    box.process["rlimits"] = [{"type": f"RLIMIT_{name}", "soft": soft, "hard": hard}]
    line = next(
        x
        for x in box.run("cat", "/proc/self/limits").splitlines()
        if x.lower().startswith(f"max {RLIMITS[name]}")
    )
    assert line[26:].split()[:2] == [str(soft), str(hard)]


@shows("config: process.rlimits[].hard", "process: rlimits without a bound")
def test_rlimit_infinity(box: Box) -> None:
    box.process["rlimits"] = [{"type": "RLIMIT_CPU", "soft": 1000, "hard": INFINITY}]
    line = next(x for x in box.run("cat", "/proc/self/limits").splitlines() if x.startswith("Max cpu time"))
    assert line.split()[3:5] == ["1000", "unlimited"]


@shows(
    "config: process.rlimits[].type",
    "errors: rlimits",
    differs={"runc": "duplicates are taken", "crun": "some are taken"},
)
@pytest.mark.parametrize(
    "entries", [["RLIMIT_NOPE"], ["NOFILE"], ["RLIMIT_NOFILE", "RLIMIT_NOFILE"]], ids=",".join
)
def test_bad_rlimits(box: Box, entries: list[str]) -> None:
    """Unknown types and duplicates are errors."""
    box.process["rlimits"] = [{"type": each, "soft": 10, "hard": 10} for each in entries]
    box.refuses("true")


@shows("config: process.oomScoreAdj")
@pytest.mark.parametrize("value", [0, 500, 1000])
def test_oom_score_adj(box: Box, value: int) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    if value < own and (reason := capabilities.missing("cap_sys_resource")):
        pytest.skip(reason)
    box.process["oomScoreAdj"] = value
    assert box.run("cat", "/proc/self/oom_score_adj") == str(value)


@shows("config: process.oomScoreAdj", "process: without oomScoreAdj it stays as it is")
def test_oom_score_adj_unset(box: Box) -> None:
    assert box.run("cat", "/proc/self/oom_score_adj") == Path("/proc/self/oom_score_adj").read_text().strip()


SCHEDULER = {"since": {"runc": "1.2", "crun": "1.8.5"}}
POLICIES = {"SCHED_OTHER": "0", "SCHED_BATCH": "3", "SCHED_IDLE": "5"}


def _sched(box: Box) -> dict[str, str]:
    """policy, prio, nice ... of the process: /proc/PID/sched has them all."""
    lines = box.run("cat", "/proc/self/sched", "/proc/self/stat").splitlines()
    found = dict(line.replace(" ", "").split(":", 1) for line in lines if line.count(":") == 1)
    return found | {"nice": lines[-1].rpartition(")")[2].split()[16]}


@shows("config: process.ioPriority.class", "config: ioPriority: idle has no levels")
def test_io_priority_idle_has_no_levels(box: Box) -> None:
    """There is nothing to say of it; what an older runtime does with the whole field is its business."""
    box.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE"}
    shown = box.run("ionice", "-p", "1")
    assert shown.startswith("idle") or box.runtime.name != "pyrun-oci", shown


@shows("config: process.capabilities.effective[]", "config: the program is judged by execve")
@pytest.mark.parametrize("verb", ["run", "exec"])
@pytest.mark.parametrize("command", ["/own/tool", "tool"])
@pytest.mark.parametrize(
    ("uid", "mode", "capability", "runs"),
    [
        (1000, 0o700, "CAP_DAC_OVERRIDE", True), (1000, 0o710, "CAP_DAC_OVERRIDE", True),
        (1000, 0o700, "CAP_KILL", False), (0, 0o700, "CAP_KILL", False), (1000, 0o600, "CAP_DAC_OVERRIDE", False),
        (0, 0o600, "CAP_DAC_OVERRIDE", False), (1000, 0o705, "CAP_KILL", True),
    ],
)  # fmt: skip
def test_the_program_is_judged_by_execve(
    box: Box, uid: int, mode: int, capability: str, runs: bool, command: str, verb: str
) -> None:
    """By the ids and capabilities it is going to have, not by the mode alone."""
    place = box.rootfs / "own"
    place.mkdir(mode=0o700 if capability == "CAP_DAC_OVERRIDE" else 0o755)
    (place / "tool").write_text("#!/bin/sh\necho ran\n")
    (place / "tool").chmod(mode)
    for path in (place, place / "tool"):
        os.chown(path, 5, 5)
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    box.process["capabilities"] = {name: [capability] for name in sets}
    box.process["user"] = {"uid": uid, "gid": uid}
    box.process["env"] = [*box.process["env"], "PATH=/bin:/own"]
    if verb == "exec":
        box.detach()
        done = box.call("exec", box.id, command)
    else:
        box.write(command)
        done = box.call("run", "--bundle", str(box.bundle), box.id)
    if runs:
        assert (done.status, done.out) == (0, "ran\n"), done
    else:
        assert done.status and "ermission denied" in done.err + "ermission denied" * (
            "not found" in done.err
        ), done


@shows("config: process.scheduler.policy", **SCHEDULER)
@pytest.mark.parametrize("policy", rows("config: process.scheduler.policy=", *POLICIES, **SCHEDULER))
def test_scheduler_policy(box: Box, policy: str) -> None:
    box.process["scheduler"] = {"policy": policy}
    assert _sched(box)["policy"] == POLICIES[policy]


@shows("config: process.scheduler.nice", **SCHEDULER)
def test_scheduler_nice(box: Box) -> None:
    box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    assert _sched(box)["nice"] == "7"


@shows("config: process.scheduler.priority", **SCHEDULER)
@pytest.mark.needs("realtime")
@pytest.mark.parametrize(("policy", "number"), [
    pytest.param("SCHED_FIFO", "1", marks=shows("config: process.scheduler.policy=SCHED_FIFO", **SCHEDULER)),
    pytest.param("SCHED_RR", "2", marks=shows("config: process.scheduler.policy=SCHED_RR", **SCHEDULER)),
])  # fmt: skip
def test_scheduler_realtime(box: Box, policy: str, number: str) -> None:
    box.process["scheduler"] = {"policy": policy, "priority": 5}
    seen = _sched(box)
    assert (seen["policy"], seen["prio"]) == (number, "94")


@shows(
    "config: process.scheduler.flags[]",
    "config: process.scheduler.flags[]=SCHED_FLAG_RESET_ON_FORK",
    **SCHEDULER,
)
def test_scheduler_reset_on_fork(box: Box) -> None:
    """The flag is seen by what a child of the process no longer has."""
    box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    out = box.sh("cut -d' ' -f19 /proc/1/stat; cut -d' ' -f19 /proc/self/stat; true")
    assert out.split() == ["-5", "0"]


@shows("config: process.scheduler.runtime", "config: process.scheduler.deadline", "config: process.scheduler.period",
       "config: process.scheduler.policy=SCHED_DEADLINE", **SCHEDULER)  # fmt: skip
@pytest.mark.needs("deadline")
def test_scheduler_deadline(box: Box) -> None:
    box.process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "runtime": 10_000_000,
        "deadline": 30_000_000,
        "period": 40_000_000,
    }
    seen = _sched(box)
    assert seen["policy"] == "6"
    assert {seen.get("dl.runtime"), seen.get("dl.deadline")} & {"10000000", "30000000"} or seen[
        "prio"
    ] == "-1"


@shows("config: process.scheduler.policy", "errors: scheduler", **SCHEDULER)
@pytest.mark.parametrize("scheduler", [{"policy": "SCHED_NOPE"}, {}, {"policy": "SCHED_OTHER", "flags": ["X"]},
                                       {"policy": "SCHED_ISO"}], ids=json.dumps)  # fmt: skip
def test_bad_scheduler(box: Box, scheduler: dict[str, object]) -> None:
    box.process["scheduler"] = scheduler
    box.refuses("true")


IO_PRIORITY = {"since": {"runc": "1.2", "crun": "1.8.6"}}


@shows("config: process.ioPriority.class", "config: process.ioPriority.priority", **IO_PRIORITY)
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(
            "IOPRIO_CLASS_RT",
            "realtime: prio 3",
            marks=shows("config: process.ioPriority.class=IOPRIO_CLASS_RT", **IO_PRIORITY),
        ),
        pytest.param(
            "IOPRIO_CLASS_BE",
            "best-effort: prio 3",
            marks=shows("config: process.ioPriority.class=IOPRIO_CLASS_BE", **IO_PRIORITY),
        ),
        pytest.param(
            "IOPRIO_CLASS_IDLE",
            "idle",
            marks=shows("config: process.ioPriority.class=IOPRIO_CLASS_IDLE", **IO_PRIORITY),
        ),
    ],
)
def test_io_priority(box: Box, kind: str, text: str) -> None:
    box.process["ioPriority"] = {"class": kind, "priority": 3}
    assert box.run("ionice").startswith(text)


@shows(
    "config: process.execCPUAffinity.initial",
    "config: process.execCPUAffinity.final",
    since={"runc": "1.3", "crun": None},
)
@pytest.mark.needs("two_processors")
def test_exec_cpu_affinity(box: Box) -> None:
    """For exec only: the container's first process is not concerned."""
    box.process["execCPUAffinity"] = {"initial": "0", "final": "1"}
    box.detach()
    status = ("grep", "Cpus_allowed_list", "/proc/self/status")
    assert box.exec(*status).split()[1] == "1"
    assert box.exec(*status[:2], "/proc/1/status").split()[1] != "1"


@shows("config: process.execCPUAffinity.initial", since={"runc": "1.3", "crun": None})
@pytest.mark.needs("two_processors")
def test_exec_cpu_affinity_of_a_process_file(box: Box) -> None:
    box.detach()
    path = box.directory / "process.json"
    process = {"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": [PATH],
               "user": {"uid": 0, "gid": 0}, "execCPUAffinity": {"final": "0"}}  # fmt: skip
    path.write_text(json.dumps(process))
    assert box.ok("exec", "-p", str(path), box.id).split()[1] == "0"


# ── names ──────────────────────────────────────────────────────────────────────────────────────────


@shows("config: hostname")
def test_hostname(box: Box) -> None:
    box.config["hostname"] = "slartibartfast"
    assert box.run("hostname") == "slartibartfast"


@shows("config: domainname", since={"runc": "1.2"})
def test_domainname(box: Box) -> None:
    box.config["domainname"] = "foobarbaz.test"
    assert box.run("cat", "/proc/sys/kernel/domainname") == "foobarbaz.test"


@shows("config: hostname", "errors: a hostname without a uts namespace")
def test_hostname_without_namespace(box: Box) -> None:
    """Else the host would be renamed."""
    box.without_namespace("uts")
    before = Path("/proc/sys/kernel/hostname").read_text()
    box.refuses("true")
    assert Path("/proc/sys/kernel/hostname").read_text() == before

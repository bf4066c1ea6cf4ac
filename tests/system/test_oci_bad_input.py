"""Bad input to pyrun-oci, end to end: one line that says where, in time, and nothing left of it.

The check of config.json is held by tests/unit; here a few of every section go through `create` and `run`, and then
come the texts and files that are no config, what only the kernel refuses, and ids that are none. Where runc's words
differ in more than style, they stand beside ours.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import capabilities
import waiting
from hostile_oci import Config, Oci, message_of
from pyrun.errors import UsageError
from pyrun.spec import check
from unit import config_mutations

MIB = 1 << 20
Change = Callable[[Oci], object]


@pytest.fixture
def oci(static_binary: Path, tmp_path: Path) -> Iterator[Oci]:
    command = Oci(static_binary.with_name("pyrun-oci"), tmp_path)
    command.root.mkdir()
    yield command
    command.close()


# ── configs with a wrong field ─────────────────────────────────────────────────────────────────────

# Of all wrong values, these in every section: what is wrong for whatever a field may be.
PER_SECTION = 2


def wrong_configs() -> list[tuple[str, Config]]:
    """(path of the wrong value, config): a few for each section of a config that has them all."""
    whole = next(config for seed in range(100) if accepted(config := config_mutations.valid(seed)))
    counts: dict[tuple[str | int, ...], int] = {}
    chosen = []
    for path, config in config_mutations.mutations(whole, 1):
        section = path[: 1 + (path[0] in ("linux", "process"))]
        if counts.get(section, 0) == PER_SECTION or not writable(config):
            continue
        if not accepted(config):
            counts[section] = counts.get(section, 0) + 1
            chosen.append((config_mutations.shown(path), config))
    return chosen


def accepted(config: Config) -> bool:
    try:
        check.config(config_mutations.copied(config))
    except UsageError:
        return False
    return True


def writable(config: Config) -> bool:
    """Whether it can be put into a file at all: NaN and the like are no JSON; they have a test of their own."""
    try:
        json.dumps(config, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def test_a_wrong_field_of_every_section(oci: Oci) -> None:
    """`create` and `run` by turns."""
    wrong = wrong_configs()
    assert len(wrong) >= 40
    for number, (path, config) in enumerate(wrong):
        oci.write(config)
        command = ("create", "run")[number % 2]
        message = oci.refused(command, "--bundle", str(oci.bundle), "bad")
        prefix = f"pyrun-oci {command} failed: config.json: "
        assert message.startswith(prefix), (path, message)
        assert path.partition("[")[0] in message, (path, message)


@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("namespaces twice", {"linux.namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]},
         "linux.namespaces"),
        ("a relative cwd", {"process.cwd": "tmp"}, "process.cwd"),
        ("a relative namespace", {"linux.namespaces": [{"type": "mount", "path": "ns"}]},
         "linux.namespaces[0].path"),
        ("a relative masked path", {"linux.maskedPaths": ["proc/kcore"]}, "linux.maskedPaths[0]"),
        ("a relative device", {"linux.devices": [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}]},
         "linux.devices[0].path"),
        ("a relative hook", {"hooks": {"poststop": [{"path": "bin/true"}]}}, "hooks.poststop[0].path"),
        ("NUL in an argument", {"process.args": ["a\0b"]}, "process.args[0]"),
        ("NUL in a path", {"mounts": [{"destination": "/x\0y", "type": "tmpfs"}]}, "mounts[0].destination"),
        ("NUL in a name", {"hostname": "a\0"}, "hostname"),
        ("a huge number", {"linux.resources": {"pids": {"limit": 1 << 64}}}, "linux.resources.pids.limit"),
        ("a huger number", {"process.user": {"uid": 10**400, "gid": 0}}, "process.user.uid"),
        ("a negative number", {"process.user": {"uid": -1, "gid": 0}}, "process.user.uid"),
        ("all of /proc hidden", {"mounts": [{"destination": "/proc", "type": "tmpfs"}]}, "mounts[0]"),
    ],
)  # fmt: skip
def test_configs_with_one_trap(oci: Oci, command: str, name: str, change: Config, words: str) -> None:
    for path, value in change.items():
        *sections, key = path.split(".")
        place = oci.config
        for section in sections:
            place = place[section]
        place[key] = value
    oci.write()
    assert f"config.json: {words}" in oci.refused(command, "--bundle", str(oci.bundle), "bad")


TEXTS = {
    "nothing": (b"", "is empty"),
    "100 MB": (b'{"annotations": {"a": "' + b"x" * (100 * MIB) + b'"}}', "must have at most 4 MiB"),
    "100 MB of zeros": (b"\0" * (100 * MIB), "must have at most 4 MiB"),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, "is nested too deeply"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
    "NUL": (b'{"ociVersion": "1.0.0"}\0', "extra data"),
    "cut": (b'{"ociVersion": "1.0', "line 1"),
    "a key twice": (b'{"root": {"path": "a", "path": "b"}}', "root.path: is there twice"),
    "many digits": (b'{"linux": ' + b"9" * 100_000 + b"}", "digits"),
    "not UTF-8": (b'{"hostname": "\xff"}', "must be UTF-8"),
    "a list": (b"[]", "must be an object"),
    "null": (b"null", "must be an object"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_no_config(oci: Oci, name: str) -> None:
    raw, words = TEXTS[name]
    (oci.bundle / "config.json").write_bytes(raw)
    for command in ("create", "run"):
        message = oci.refused(command, "--bundle", str(oci.bundle), "bad")
        assert "failed: config.json: " in message and words in message


def test_files_that_are_no_config(oci: Oci) -> None:
    path = oci.bundle / "config.json"
    words = ("--bundle", str(oci.bundle), "bad")
    assert "config.json: no such file or directory" in oci.refused("create", *words)
    path.mkdir()
    assert "config.json: is a directory" in oci.refused("create", *words)
    path.rmdir()
    os.mkfifo(path)  # nobody will ever write to it
    assert "config.json: not a regular file" in oci.refused("create", *words)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "config.json: not a regular file" in oci.refused("create", *words)
    path.unlink()
    path.symlink_to(path)
    assert "config.json: too many levels of symbolic links" in oci.refused("create", *words)
    path.unlink()
    for bundle in ("/no/such", "/etc/passwd", str(oci.bundle) + "x" * 5000):
        assert "config.json: " in oci.refused("create", "--bundle", bundle, "bad")


def test_a_config_that_the_caller_may_not_read(oci: Oci) -> None:
    place = Path(f"/run/hostile-{os.getpid()}")  # where every user gets, unlike a test's own directory
    place.mkdir(mode=0o755)
    (place / "config.json").write_text("{}")
    (place / "config.json").chmod(0)
    (place / "state").mkdir()
    (place / "state").chmod(0o777)
    ordinary = {"user": 65534, "group": 65534, "extra_groups": []}
    message = oci.refused("create", "--bundle", str(place), "bad", root=place / "state", **ordinary)
    assert "config.json: permission denied" in message
    shutil.rmtree(place)


# ── what the kernel refuses, or what is found late ─────────────────────────────────────────────────


def mount(destination: str, kind: str, source: str = "none", *options: str) -> Change:
    entry = {"destination": destination, "type": kind, "source": source, "options": [*options]}
    return lambda oci: oci.config["mounts"].append(entry)


def process(**values: object) -> Change:
    return lambda oci: oci.config["process"].update(values)


def linux(**values: object) -> Change:
    return lambda oci: oci.linux.update(values)


def resources(**values: object) -> Change:
    return lambda oci: oci.linux["resources"].update(values)


def hooks(kind: str, path: str) -> Change:
    return lambda oci: oci.config.update(hooks={kind: [{"path": path}]})


def namespace(kind: str, path: str) -> Change:
    def change(oci: Oci) -> None:
        others = [each for each in oci.linux["namespaces"] if each["type"] != kind]
        oci.linux["namespaces"] = [*others, {"type": kind, "path": path}]

    return change


def maps(*ranges: tuple[int, int, int]) -> Change:
    def change(oci: Oci) -> None:
        oci.linux["namespaces"].append({"type": "user"})
        lines = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in ranges]
        oci.linux["uidMappings"] = lines
        oci.linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 10}]

    return change


def root(path: str, **values: object) -> Change:
    return lambda oci: oci.config.update(root={"path": path, **values})


FAILURES: dict[str, tuple[Change, str]] = {
    # ── mounts and devices ──
    "a missing source": (mount("/x", "bind", "/no/such", "bind"),
                         "cannot show the host's /no/such at /x: no such file or directory"),
    "an unknown file system": (mount("/x", "nosuchfs"), "cannot mount a nosuchfs on /x: no such device"),
    "an unknown option": (mount("/x", "tmpfs", "x", "frob=1"), "Unknown parameter 'frob'"),
    "a file on a directory": (mount("/data", "bind", "/etc/passwd", "bind"), "at /data: not a directory"),
    "a directory on a file": (mount("/bin/busybox", "bind", "/etc", "bind"), "at /bin/busybox: not a directory"),
    "below a file": (mount("/bin/busybox/x", "tmpfs"), "on /bin/busybox/x: not a directory"),
    "inside /proc": (mount("/proc/self", "bind", "/etc", "bind"), "cannot be mounted because it is inside /proc"),
    "a device in /proc": (linux(devices=[{"path": "/proc/q", "type": "c", "major": 1, "minor": 3}]),
                          "cannot make the device node /proc/q"),
    # ── the root file system ──
    "a root that is a file": (root("config.json"), "config.json: root.path: "),
    "a root that is missing": (root("nope"), "config.json: root.path: "),
    # runc: mkdirat rofs/proc: read-only file system
    "a read-only root": (root("rofs"), "cannot mount a proc on /proc: read-only file system"),
    "a full root": (root("full"), "no space left on device"),
    "an empty root": (root("empty"), 'exec: "sleep": executable file not found in $PATH'),
    "an empty root, read-only": (root("empty", readonly=True), "executable file not found in $PATH"),
    # ── namespaces; runc: nsexec-1[N]: failed to setns into net namespace: Invalid argument, and two lines more ──
    "a file as namespace": (namespace("network", "/etc/passwd"),
                            "config.json: linux.namespaces: network: /etc/passwd is no namespace"),
    "a directory as namespace": (namespace("uts", "/proc"), "linux.namespaces: uts: /proc is no namespace"),
    "a namespace of the dead": (namespace("ipc", "/proc/4194303/ns/ipc"),
                                "ipc: /proc/4194303/ns/ipc: no such file or directory"),
    "the wrong type": (namespace("network", "/proc/self/ns/uts"), "/proc/self/ns/uts is a uts namespace"),
    "the wrong type for pid": (namespace("pid", "/proc/self/ns/uts"), "/proc/self/ns/uts is a uts namespace"),
    "the wrong type for user": (namespace("user", "/proc/self/ns/net"), "/proc/self/ns/net is a network namespace"),
    "a file as mount namespace": (namespace("mount", "/etc/passwd"), "/etc/passwd is no namespace"),
    "a refused parameter": (linux(sysctl={"net.ipv4.ip_forward": "nonsense"}),
                            "net/ipv4/ip_forward to nonsense, for this container alone: invalid argument "
                            "(the kernel does not take that value)"),
    "an unknown parameter": (linux(sysctl={"net.no.such": "1"}), "net/no/such to 1, for this container alone: no such "
                             "file or directory (this kernel has no such parameter)"),
    # ── user namespaces; runc: failed to update /proc/N/uid_map: Invalid argument, and two lines more ──
    "maps that overlap inside": (maps((0, 0, 10), (5, 100, 10)), "linux.uidMappings[1].containerID: 5"),
    "maps that overlap outside": (maps((0, 0, 10), (20, 5, 10)), "linux.uidMappings[1].hostID: 5"),
    "maps without root": (maps((5, 0, 10)), "linux.uidMappings: must map id 0"),
    "too many maps": (maps(*[(each, each, 1) for each in range(341)]), "linux.uidMappings: must have at most 340"),
    # ── cgroups ──
    # runc: unable to get cgroup freezer state: openat2 /sys/fs/cgroup/freezer/tasks/freezer.state: not a directory
    "a file as cgroup": (linux(cgroupsPath="/cgroup.procs"), "cgroup: cannot make "),
    "a cgroup below a file": (linux(cgroupsPath="/cgroup.procs/x"), "cgroup: cannot make "),
    "a cgroup somebody lives in": (linux(cgroupsPath="/"), ""),
    # runc: unable to set memory limit to 1 (current usage: N, peak usage: N)
    "too little memory": (resources(memory={"limit": 1}), "memory"),
    "memory for no process": (resources(memory={"limit": 1000}),
                              "config.json: linux.resources.memory.limit is 1000)"),
    "a processor there is not": (resources(cpu={"cpus": "4000"}), "linux.resources.cpu.cpus: cannot write '4000'"),
    "a node there is not": (resources(cpu={"mems": "77"}), "linux.resources.cpu.mems: cannot write '77'"),
    "more pids than there are": (resources(pids={"limit": 1 << 40}), "linux.resources.pids.limit: cannot write"),
    "a page size there is not": (resources(hugepageLimits=[{"pageSize": "3MB", "limit": 1}]),
                                 "linux.resources.hugepageLimits"),
    "a disk there is not": (resources(blockIO={"throttleReadBpsDevice": [{"major": 77, "minor": 77, "rate": 1}]}),
                            "linux.resources.blockIO.throttleReadBpsDevice"),
    "no resctrl": (linux(intelRdt={"closID": "x", "memBwSchema": "MB:0=20"}), "linux.intelRdt: "),
    # ── words there are not ──
    "a propagation there is not": (linux(rootfsPropagation="x"), "linux.rootfsPropagation: must be one of private, "
                                   "shared, slave, unbindable, rprivate, rshared, rslave, runbindable, not 'x'"),
    "an architecture there is not": (
        linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_BOGUS"]}),
        "config.json: linux.seccomp.architectures[1]: unknown: 'SCMP_ARCH_BOGUS'"),
    "an action there is not": (linux(seccomp={"defaultAction": "x"}),
                               "linux.seccomp.defaultAction: unknown: 'x' (one of SCMP_ACT_ALLOW, SCMP_ACT_LOG, "),
    # ── the process ──
    "a soft limit above the hard one": (process(rlimits=[{"type": "RLIMIT_CORE", "soft": 5, "hard": 4}]),
                                        "process.rlimits[0].soft"),
    "a cwd that is a file": (process(cwd="/bin/busybox"), "/bin/busybox if the image has none: not a directory"),
    "a cwd below a file": (process(cwd="/bin/busybox/x"), "not a directory"),
    "a directory as program": (process(args=["/etc"]), 'exec: "/etc": is a directory'),  # runc: permission denied
    "a program that is none": (process(args=["/etc/plain"]), 'exec: "/etc/plain": permission denied'),
    "a missing program": (process(args=["/bin/nope"]), "stat /bin/nope: no such file or directory"),
    "no program of that name": (process(args=["nope"]), "executable file not found in $PATH"),
    "an empty name": (process(args=[""]), 'exec: "": executable file not found in $PATH'),
    "a loop of links": (process(args=["/bin/loop"]), "stat /bin/loop: too many levels of symbolic links"),
    # ── hooks ──
    "a missing hook": (hooks("createRuntime", "/no/such"),
                       "createRuntime hook #0: /no/such: no such file or directory"),
    "a hook that is no program": (hooks("prestart", "/etc/passwd"), "prestart hook #0: /etc/passwd: permission denied"),
    "a missing hook inside": (hooks("createContainer", "/no/such"), "createContainer hook #0: /no/such: "),
    "a device to take that is not there": (linux(netDevices={"nosuch0": {}}), "linux.netDevices.nosuch0"),
}  # fmt: skip
NEEDS_ABSENT = {"no resctrl": "resctrl"}


def prepare_roots(oci: Oci) -> None:
    """Root file systems of every kind, and programs that are none."""
    for name, options in (("rofs", "ro"), ("full", "nr_inodes=2")):
        (oci.bundle / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, name, str(oci.bundle / name)], check=True)
    (oci.bundle / "empty").mkdir()
    (oci.rootfs / "etc/plain").write_text("no program\n")
    (oci.rootfs / "bin/loop").symlink_to("loop")
    (oci.rootfs / "bin/text").write_text("no program\n")
    (oci.rootfs / "bin/lost").write_text("#!/no/such/interpreter\n")
    foreign = bytearray((oci.rootfs / "bin/busybox").read_bytes()[:4096])
    foreign[18:20] = b"\xf3\0"  # e_machine: RISC-V
    (oci.rootfs / "bin/foreign").write_bytes(foreign)
    for name in ("text", "lost", "foreign"):
        (oci.rootfs / "bin" / name).chmod(0o755)


@pytest.fixture
def prepared(oci: Oci) -> Iterator[Oci]:
    prepare_roots(oci)
    yield oci
    for name in ("rofs", "full"):
        subprocess.run(["umount", "--lazy", str(oci.bundle / name)], check=True)


def test_what_is_found_late(prepared: Oci) -> None:
    """Each fails in `create`, with one line, and whatever was made before it is gone."""
    plain = copy.deepcopy(prepared.config)
    wrong = []
    for name, (change, words) in FAILURES.items():
        if (absent := NEEDS_ABSENT.get(name)) and not capabilities.missing(absent):
            continue
        prepared.config = copy.deepcopy(plain)
        prepared.linux = prepared.config["linux"]
        change(prepared)
        prepared.write()
        try:
            message = prepared.refused("create", "--bundle", str(prepared.bundle), "bad")
            assert words in message, message
        except AssertionError as problem:
            wrong.append(f"{name}: {problem}")
            prepared("delete", "--force", "bad")
    assert not wrong, "\n".join(wrong)


@pytest.mark.needs("no_cap_sys_resource")
def test_what_only_root_of_the_machine_may(oci: Oci) -> None:
    for change, words in (
        (process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]), "limit nofile"),
        (process(oomScoreAdj=-1000), "out-of-memory score to -1000: permission denied"),
    ):
        plain = copy.deepcopy(oci.config["process"])
        change(oci)
        oci.write()
        assert words in oci.refused("create", "--bundle", str(oci.bundle), "bad")
        oci.config["process"] = plain


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/bin/text", "exec /bin/text: exec format error"),
        ("/bin/foreign", "exec /bin/foreign: exec format error"),
        ("/bin/lost", "exec /bin/lost: no such file or directory"),
    ],
)
def test_programs_that_only_execve_refuses(prepared: Oci, program: str, words: str) -> None:
    """`start` tells it, and the container has stopped. (runc: status 0, the line is on the container's stderr.)"""
    prepared.config["process"]["args"] = [program]
    prepared.create("odd")
    assert words in message_of(prepared("start", "odd"))
    assert prepared.state("odd")["status"] == "stopped"
    assert "cannot start a container that has stopped" in message_of(prepared("start", "odd"))
    prepared.gone("odd")
    assert words in prepared.refused("run", "--bundle", str(prepared.bundle), "odd")


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
@pytest.mark.parametrize("calls", [["execve", "execveat"], []])
def test_filters_that_forbid_the_start(oci: Oci, action: str, calls: list[str]) -> None:
    """Nobody waits for ever, least of all an init that may not even exit; the container has stopped."""
    default = "SCMP_ACT_ALLOW" if calls else action
    syscalls = [{"names": calls, "action": action}] if calls else []
    oci.linux["seccomp"] = {"defaultAction": default, "syscalls": syscalls}
    oci.create("odd")
    done = oci("start", "odd", timeout=5)
    if calls and action == "SCMP_ACT_ERRNO":  # else it cannot say so any more
        assert "exec /bin/sleep: operation not permitted" in message_of(done)
    else:
        assert done.status == 0 or message_of(done)
    waiting.until(
        lambda: oci.state("odd")["status"] == "stopped", "its end"
    )  # its socket closes before it is gone
    oci.gone("odd")


def test_a_cwd_that_is_not_there_is_made(oci: Oci) -> None:
    """As runc does."""
    oci.config["process"].update(cwd="/no/such", args=["sleep", "1000"])
    oci.detach("odd")
    assert (oci.rootfs / "no/such").is_dir()
    oci.gone("odd")


# ── ids ────────────────────────────────────────────────────────────────────────────────────────────

BAD_IDS = ("..", ".", "a/b", "../a", "/etc", "a\nb", "", "a b", "\u00e4", "x" * 1100, "a\tb", "a:b")
COMMANDS: dict[str, tuple[str, ...]] = {
    "create": (), "run": (), "start": (), "state": (), "kill": ("KILL",), "delete": (), "exec": ("true",),
    "ps": (), "pause": (), "resume": (), "update": (), "events": (), "checkpoint": (), "restore": (),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_ids_that_are_none(oci: Oci, command: str) -> None:
    """Whatever stands in the state directory or beside it: the id is refused before anybody looks."""
    oci.write()
    marker = oci.directory / "marker"
    marker.write_text("alive\n")
    options = ("--bundle", str(oci.bundle)) if command in ("create", "run") else ()
    for identifier in BAD_IDS:
        before = oci.picture()
        done = oci(command, *options, identifier, *COMMANDS[command])
        message = message_of(done)
        assert done.status in (1, 255) and done.seconds < 2, done
        known = (
            "invalid container ID format",
            "container id cannot be empty",
            "not implemented",
            "file name too long",
        )
        assert any(words in message for words in known), (identifier, message)
        oci.unchanged(before)
    assert marker.read_text() == "alive\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_id_with_a_leading_dash_is_an_option(oci: Oci, command: str) -> None:
    before = oci.picture()
    done = oci(command, "-x")
    assert done.status != 0 and "flag provided but not defined: -x" in done.out + done.err
    oci.unchanged(before)
    done = oci(command, "--", "-x", *COMMANDS[command])  # and here it is not
    assert done.status in (1, 255) and "Traceback" not in done.err, done
    oci.unchanged(before)


def test_an_id_with_a_leading_dash_can_be_had(oci: Oci) -> None:
    oci.write()
    oci.ok("create", "--bundle", str(oci.bundle), "--", "-x")
    assert oci("state", "-x").status == 1
    assert json.loads(oci.ok("state", "--", "-x"))["status"] == "created"
    oci.ok("delete", "--force", "--", "-x")


def test_ids_as_long_as_file_names_are(oci: Oci) -> None:
    """255 bytes is what the file system takes; the longest that can be had works to the end."""
    oci.write()
    for length in (256, 1024):
        message = oci.refused("create", "--bundle", str(oci.bundle), "x" * length)
        assert "file name too long" in message
        assert "container does not exist" in oci.refused("state", "x" * length)
    longest = "x" * 200
    oci.create(longest)
    oci.ok("start", longest)
    assert oci.state(longest)["status"] == "running"
    oci.gone(longest)


# ── files given to other commands ──────────────────────────────────────────────────────────────────


def wrong_documents() -> dict[str, tuple[bytes, str]]:
    return {name: text for name, text in TEXTS.items() if not name.startswith("100 MB of")}


@pytest.mark.parametrize("name", wrong_documents())
def test_documents_for_exec_and_update(oci: Oci, name: str) -> None:
    """The same texts: the container they are for goes on as it was."""
    oci.detach()
    before = oci.state()
    raw, _ = TEXTS[name]
    path = oci.directory / "document.json"
    path.write_bytes(raw)
    assert str(path) in oci.refused("exec", "--process", str(path), "box", status=255)
    assert str(path) in oci.refused("update", "--resources", str(path), "box")
    assert oci.state() == before
    oci.gone()


def test_a_wrong_process_for_exec(oci: Oci) -> None:
    oci.detach()
    plain: dict[str, Any] = {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    path = oci.directory / "process.json"
    for change, words in (
        ({"args": []}, "args"), ({"args": "true"}, "args"), ({"cwd": "tmp"}, "cwd"), ({"user": {"uid": -1}}, "user"),
        ({"env": ["A=\0"]}, "env[0]"), ({"rlimits": [{"type": "RLIMIT_FROB", "soft": 1, "hard": 1}]}, "rlimits[0]"),
        ({"args": ["nope"]}, "executable file not found"), ({"cwd": "/bin/sh"}, "/bin/sh"),
        ({"cwd": "/no/such"}, 'chdir to cwd ("/no/such") set in config.json: no such file or directory'),
    ):  # fmt: skip
        path.write_text(json.dumps(plain | change))
        assert words in oci.refused("exec", "--process", str(path), "box", status=255)
    assert oci.state()["status"] == "running"
    oci.gone()


UPDATES = [
    (("--memory", "1k"), "--memory 1k: "),
    (("--cpu-quota", "5"), "--cpu-quota 5: must be "),
    (("--cpuset-cpus", "4000"), "--cpuset-cpus 4000: cannot write '4000' to "),
    (("--cpuset-mems", "77"), "--cpuset-mems 77: cannot write '77' to "),
    (("--memory", "10m", "--memory-swap", "5m"), "--memory-swap 5m: "),
    (("--pids-limit", str(1 << 40)), f"--pids-limit {1 << 40}: "),
]  # fmt: skip


@pytest.mark.parametrize(("words", "begins"), UPDATES)
def test_limits_that_cannot_be_had_are_named_by_their_flag(
    oci: Oci, words: tuple[str, ...], begins: str
) -> None:
    oci.linux["resources"]["memory"] = {"limit": 64 * MIB}
    oci.linux["resources"]["memory"]["checkBeforeUpdate"] = True  # v2 would kill instead
    oci.detach()
    assert oci.refused("update", *words, "box").startswith(begins)
    assert oci.state()["status"] == "running"
    oci.gone()


def test_limits_that_cannot_be_had_are_named_by_their_file(oci: Oci) -> None:
    oci.detach()
    path = oci.directory / "resources.json"
    for document, words in (
        ({"cpu": {"cpus": "4000"}}, "cpu.cpus: cannot write '4000' to "),
        ({"pids": {"limit": "x"}}, "pids.limit: must be"),
    ):
        path.write_text(json.dumps(document))
        assert oci.refused("update", "--resources", str(path), "box").startswith(
            f"--resources {path}: {words}"
        )
    oci.gone()


@pytest.mark.needs("cgroup1")
def test_a_limit_in_force_that_forbids_another(oci: Oci) -> None:
    """It was not given by a flag, so none is blamed; only v1 limits memory and swap together."""
    oci.linux["resources"]["memory"] = {"limit": 20 * MIB, "swap": 30 * MIB}
    oci.detach()
    assert oci.refused("update", "--memory", "40m", "box").startswith(
        "--memory 40m: cannot write '41943040' to "
    )
    oci.gone()


def test_a_sub_cgroup_that_is_not_there(oci: Oci) -> None:
    oci.detach()
    message = oci.refused("exec", "--cgroup", "nosuch", "box", "true", status=255)
    assert "--cgroup nosuch: /sys/fs/cgroup/" in message
    assert "/nosuch: no such file or directory" in message
    message = oci.refused("exec", "--cgroup", "frob:x", "box", "true", status=255)
    assert "--cgroup frob:x: the container has no cgroup of a controller 'frob'" in message
    oci.gone()


def test_a_socket_that_nobody_serves(oci: Oci) -> None:
    """--console-socket and --pidfd-socket: absent, a file, nobody listens, nobody accepts."""
    import socket

    oci.config["process"]["terminal"] = True
    oci.write()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(oci.directory / "dead"))
    dead.close()
    (oci.directory / "file").touch()
    for name, words in (
        ("absent", "no such file"),
        ("file", "connection refused"),
        ("dead", "connection refused"),
    ):
        path = str(oci.directory / name)
        message = oci.refused("create", "--bundle", str(oci.bundle), "--console-socket", path, "bad")
        assert f"--console-socket {path}: {words}" in message
    oci.config["process"]["terminal"] = False
    oci.write()
    for option in ("--pidfd-socket", "--pid-file"):
        message = oci.refused("create", "--bundle", str(oci.bundle), option, "/no/such/place", "bad")
        assert f"{option} /no/such/place: no such file or directory" in message
    for place in (str(oci.bundle), "/proc/x"):
        assert "--pid-file " in oci.refused("create", "--bundle", str(oci.bundle), "--pid-file", place, "bad")
    assert not list(oci.bundle.parent.glob("*.tmp"))


def test_two_that_want_one_cgroup(oci: Oci) -> None:
    """The second is refused, and the first lives on."""
    oci.linux["cgroupsPath"] = "/hostile/shared"
    oci.detach("first")
    assert "/hostile/shared" in oci.refused("create", "--bundle", str(oci.bundle), "second")
    assert oci.state("first")["status"] == "running"
    oci.gone("first")


def test_a_log_that_cannot_be_had(oci: Oci) -> None:
    oci.write()
    for path in ("/no/such/log", str(oci.bundle), "/proc/log"):
        done = oci("--log", path, "create", "--bundle", str(oci.bundle), "bad")
        assert done.status == 1 and f"open {path}: " in done.err, done
    assert threading.active_count() == 1 and not list(oci.root.iterdir())
    oci.create("good")  # what the launcher serves by itself is no exception
    for words in (("state", "good"), ("kill", "good", "TERM"), ("start", "good"), ("delete", "good")):
        done = oci("--log", "/no/such/log", *words)
        assert done.status == 1 and "open /no/such/log: " in done.err, done
        done = oci("--log-format", "xml", *words)
        assert done.status == 1 and "invalid log-format: xml" in done.err, done
    log = oci.directory / "empty.log"
    assert oci("--log", str(log), "--log-format", "json", "state", "good").status == 0
    assert log.read_text() == "" and oci.state("good")["status"] == "created"
    oci.gone("good")

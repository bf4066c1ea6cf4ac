"""Bad input: one clear line, a remedy, the right status, and nothing left behind.

125: pyrun refuses to start, or an option cannot be read; 126: the command cannot be executed; 127: there is none; 1: a
verb that starts nothing, or too few or too many arguments. What the registry and archives may do wrong is in
test_pull.py and test_load.py.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from refusals import check_line, refused

RUN = ("run", "--rm", "--net=none")


BAD_OPTIONS = {
    "--frob": "--frob", "-Z": "-Z", "--name=": "", "--name=x": "--name", "--name=a b": "--name", "--name=a/b": "--name",
    "--network=nope": "nope", "--network=a b": "--network", "--cap-add=FROB": "FROB", "--cap-drop=": "capability",
    "--stop-signal=FOO": "FOO", "--stop-signal=99": "99", "--stop-timeout=soon": "soon",
    "-u=nobody-here": "nobody-here",
    "-u=1:2:3": "2:3", "--group-add=nope": "nope", "--group-add=": "no group ''",
    "-m=lots": "lots", "-m=1": "--memory", "-m=-5m": "-5m",
    "-m=1x": "1x", "--label==x": "the key is empty",
    "-m=": "=", "-m=5 m": "5 m", "-m=1e9": "1e9", "-m=99999999999g": "--memory", "--cpus=many": "many",
    "--cpus=-1": "-1",
    "--cpus=nan": "nan", "--cpus=inf": "inf", "--cpus=1,5": "1,5", "--pids-limit=few": "few",
    "--ulimit=nofile": "nofile", "--ulimit=frob=1": "frob", "--ulimit=nofile=x": "x",
    "--ulimit=nofile=2:1": "nofile=2:1",
    "--ulimit=nofile=-2": "-2", "--ulimit=nofile=1:2:3": "nofile=1:2:3",
    "--ulimit=nofile=99999999999999999999999": "--ulimit",
    "--env-file=/nope": "/nope", "--env-file=/etc": "/etc", "-e==x": "--env",
    "--add-host=x": "--add-host",
    "--add-host=x:y": "y", "--add-host=:1.2.3.4": "--add-host", "--add-host=x:1.2.3": "1.2.3", "--sysctl=x": "x",
    "--sysctl=kernel.panic=1": "kernel.panic", "--sysctl=net.nope.nope=1": "net", "--security-opt=frob": "frob",
    "--security-opt=seccomp=/nope": "/nope", "--security-opt=no-new-privileges:perhaps": "no-new-privileges",
    "--security-opt=seccomp=/etc/passwd": "/etc/passwd", "-v=/nope:/x": "/nope", "-v=etc": "etc", "-v=/etc:x": "x",
    "-v=/etc:/": "/", "-v=/etc:/x:frob": "frob", "-v=:/x": ":/x", "-v=name:/x": "name", "-v=/etc:/x:ro:z": "--volume",
    "--tmpfs=x": "x", "--tmpfs=/": "/", "--tmpfs=/x:frob=1": "/x", "--tmpfs=/x:size=lots": "/x",
    "--shm-size=x": "--shm-size",
    "-w=srv": "srv", "-w=": "=", "-h=-x": "-x", "-h=a b": "a b", "-h=" + "x" * 80: "--hostname",
    "--pull=often": "often",
    "--network=pasta": "is for ordinary users", "--network=slirp4netns": "is for ordinary users",
    "--network=host:ip=10.77.0.9": "host takes no settings", "--network=bridge:ip=10.77.0.8,ip=10.77.0.9": "twice",
    "--dns=abc": "is no IP address", "--dns-search=a..b": "a..b", "--dns-search=a/b": "a/b",
    "--dns-search=" + "x" * 70: "is no host name", "--dns-option=a b": "--dns-option",
    "--explain=xml": "xml", "--rm=perhaps": "perhaps", "--platform=a/b/c/d": "a/b/c/d", "--entrypoint=/nope": "/nope",
}  # fmt: skip
# What Docker accepts too: an empty value is no value. (The short `-m=` has the value "=", as there.)
ACCEPTED = ("--name=",)


@pytest.mark.parametrize("option", [each for each in BAD_OPTIONS if each not in ACCEPTED])
def test_bad_options(pyrun: Pyrun, option: str) -> None:
    status = 127 if option.startswith("--entrypoint") else 125
    message = refused(
        pyrun,
        status,
        "run",
        "--rm",
        *([] if "network" in option else ["--net=none"]),
        option,
        "busybox",
        "true",
    )
    assert BAD_OPTIONS[option] in message, message


MANY = "9" * 4400  # digits: more than int() takes


@pytest.mark.parametrize(
    "words",
    [
        ("run", f"--memory={MANY}", "busybox"),
        ("run", f"--cpus={MANY}", "busybox"),
        ("run", f"--pids-limit={MANY}", "busybox"),
        ("run", f"--ulimit=nofile={MANY}", "busybox"),
        ("run", f"--stop-signal={MANY}", "busybox"),
        ("run", f"-p={MANY}", "busybox"),
        ("run", f"--net-rate=in={MANY}", "busybox"),
        ("run", f"--egress=10.0.0.0/{MANY}", "busybox"),
        ("run", f"-u={MANY}", "busybox"),
        ("stop", f"--timeout={MANY}", "x"),
        ("kill", f"--signal={MANY}", "x"),
        ("logs", f"--tail={MANY}", "x"),
        ("logs", f"--since={MANY}", "x"),
        ("port", "x", MANY),
        ("network", "create", f"--mtu={MANY}", "x"),
        ("network", "create", f"--subnet=10.0.0.0/{MANY}", "x"),
        ("system", "finish", "/"),
        ("system", "finish", "/etc/hostname"),
        ("system", "finish", f"/{MANY}"),
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_numbers_without_end_and_files_that_are_none(pyrun: Pyrun, words: tuple[str, ...]) -> None:
    done = pyrun(*words)
    assert done.returncode in (1, 125) and done.stderr.startswith("pyrun: "), done.stderr[:500]
    assert "unexpected" not in done.stderr and "may be a bug" not in done.stderr, done.stderr[:500]


@pytest.mark.parametrize("option", ACCEPTED)
def test_empty_options(pyrun: Pyrun, option: str) -> None:
    pyrun.ok(*RUN, option, "busybox", "true")


BAD_PORTS = ("x:80", "80:x", "80:0", "65536:80", "80:65536", "1.2.3:80:80", "256.1.1.1:80:80",
"80:80/xdp", "-1:80",
             "80:80:80:80", "80:", "", "80-81:80-82", "81-80:80", "8 0:80", "\u0661:80",
             "http:80")  # fmt: skip


@pytest.mark.parametrize("port", BAD_PORTS)
def test_bad_ports(pyrun: Pyrun, port: str) -> None:
    refused(pyrun, 125, "run", "--rm", "-p", port, "busybox", "true")


def test_a_port_on_an_address_that_is_not_here(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--rm", "busybox", "true")  # the network stands
    message = refused(pyrun, 125, "run", "--rm", "-p", "1.2.3.4:8080:80", "busybox", "true")
    assert "this host has no address 1.2.3.4" in message


def test_a_port_without_a_protocol_is_of_tcp(pyrun: Pyrun) -> None:
    """As Docker reads `80:80/`."""
    pyrun.ok("run", "-d", "--name=web", "-p", "8096:80/", "busybox", "sleep", "100")
    assert pyrun.ok("port", "web") == "80/tcp -> 0.0.0.0:8096"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, ("run",)), (1, ("run", "--rm")), (1, ("rum",)), (125, ("ps", "--frob")), (1, ("exec",)),
        (1, ("exec", "x")),
        (1, ("exec", "nope", "true")), (1, ("stop", "nope")), (1, ("kill", "nope")), (1, ("rm", "nope")),
        (1, ("logs", "nope")),
        (1, ("kill", "-s", "FOO", "nope")), (1, ("stop",)), (1, ("rm",)), (1, ("logs", "a", "b")),
        (1, ("rmi", "nope")),
        (1, ("pull",)), (1, ("network", "rm", "nope")), (1, ("network", "frob")), (1, ("ps", "--format", "xml")),
        (125, ("run", "--pull=never", "nope", "true")), (125, ("run", "UPPER", "true")), (125, ("run", "a b", "true")),
        (125, ("run", "", "true")), (125, ("run", "../x", "true")), (125, ("run", "busybox@sha256:12", "true")),
        (125, ("run", "busybox:no such", "true")), (125, ("run", "--bundle", "/nope", "x")),
        (125, ("run", "--bundle", "/etc", "x")),
        (125, ("run", "-it", "busybox", "true")),
        (1, ("network", "adopt", "--name=x", "\udc80")),
        (1, ("network", "create", "-d", "macvlan", "-o", "parent=\udc80", "x")),
    ],
)  # fmt: skip
def test_bad_words(pyrun: Pyrun, status: int, words: tuple[str, ...]) -> None:
    if words[:2] == ("run", "-it"):
        status = 1  # as Docker: the input is not a terminal
    refused(pyrun, status, *words)


@pytest.mark.parametrize("words", [("load", "-i", "/nope"), ("load", "-i", "FILE"), ("load", "FILE")])
def test_a_load_of_no_image(pyrun: Pyrun, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "garbage").write_text("garbage")
    refused(pyrun, 1, *[word.replace("FILE", str(tmp_path / "garbage")) for word in words], "-t", "x")


def test_a_load_of_nothing(pyrun: Pyrun, tmp_path: Path) -> None:
    """Whoever should have written it has failed; an archive that holds nothing is an empty image."""
    (tmp_path / "packed").write_bytes(gzip.compress(b""))
    for words in ((), ("-i", "/dev/null"), ("-i", str(tmp_path / "packed"))):
        assert "is empty" in refused(pyrun, 1, "load", "-t", "x", *words)
    assert "x" not in [line.split()[0] for line in pyrun.ok("images").splitlines()]
    pyrun.ok("load", "-t", "scratch", input="\0" * 1024)


@pytest.mark.parametrize("verb", ["pull", "load"])
@pytest.mark.parametrize("platform", ["bogus", "linux/bogus", "windows/amd64", "a/b/c/d"])
def test_a_platform_that_is_none(pyrun: Pyrun, verb: str, platform: str) -> None:
    """Said before anything is fetched or read."""
    message = refused(pyrun, 1, verb, f"--platform={platform}", "no.such.registry.test/name")
    assert f"'{platform}'" in message and "linux/arm64" in message


def test_an_unknown_image(pyrun: Pyrun) -> None:
    """The error lists what was tried; the registry is not to be reached from here."""
    message = refused(pyrun, 125, *RUN, "-q", "no.such.registry.test/name", "true")
    assert "no.such.registry.test/name" in message


# ── commands ───────────────────────────────────────────────────────────────────────────────────────


def with_files(root: Path) -> None:
    (root / "etc/data").write_text("no program\n")
    (root / "bin/data").write_text("no program\n")
    (root / "bin/garbage").write_bytes(b"\x7fELF garbage")
    (root / "bin/lost").write_text("#!/no/such/interpreter\n")
    for name in ("garbage", "lost"):
        (root / "bin" / name).chmod(0o755)
    (root / "bin/loop").symlink_to("loop")


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("nope", 127), ("/bin/nope", 127), ("/etc/data/x", 127), ("./nope", 127), ("", 127), ("/etc/data", 126),
        ("data", 126),
        ("/etc", 126), ("/", 126), ("garbage", 126), ("/bin/lost", 127), ("/bin/loop", 126), ("x" * 5000, 127),
        ("../..", 126),
    ],
)  # fmt: skip
def test_commands_that_cannot_be_started(pyrun: Pyrun, command: str, status: int, detach: bool) -> None:
    hostile.put_image(pyrun, "odd", with_files)
    options = ["run", "--net=none", "--name=odd", *(["-d"] if detach else [])]
    before = hostile.stored(pyrun)
    done = pyrun(*options, "odd", command)
    assert done.returncode == status, done
    assert done.stderr.startswith("pyrun: ") and len(done.stderr.splitlines()) <= 2, done
    assert done.stdout == "" and hostile.stored(pyrun) == before


def test_exec_of_commands_that_cannot_be_started(pyrun: Pyrun) -> None:
    hostile.put_image(pyrun, "odd", with_files)
    pyrun.ok("run", "-d", "--net=none", "--name=odd", "odd", "sleep", "100")
    for command, status in (("nope", 127), ("/etc/data", 126), ("/etc", 126), ("garbage", 126), ("", 127)):
        refused(pyrun, status, "exec", "odd", command)
    refused(pyrun, 126, "exec", "-w", "/nope", "odd", "true")
    refused(pyrun, 126, "exec", "-u", "nope", "odd", "true")


# ── names, platforms, images ───────────────────────────────────────────────────────────────────────


def test_a_name_in_use(pyrun: Pyrun) -> None:
    pyrun.ok("run", "--net=none", "--name=taken", "busybox", "true")
    for options in ((), ("-d",), ("--rm",)):
        message = refused(pyrun, 125, "run", "--net=none", *options, "--name=taken", "busybox", "true")
        assert "'taken' is in use" in message and "pyrun rm taken" in message
    assert "'taken' is in use" in refused(pyrun, 125, *RUN, "--name=/taken", "busybox", "true")


def test_a_port_in_use(pyrun: Pyrun) -> None:
    pyrun.ok("run", "-d", "--name=first", "-p", "8095:80", "busybox", "sleep", "100")
    message = refused(pyrun, 125, "run", "--rm", "-p", "8095:81", "busybox", "true")
    assert "8095" in message and "first" in message


def test_another_platform(pyrun: Pyrun) -> None:
    name = hostile.put_image(pyrun, "foreign")
    (path,) = pyrun.root.glob(f"images/{hostile.EVIL}*/image.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architecture": "s390x"}))
    message = refused(pyrun, 125, *RUN, name, "true")
    assert (
        "s390x" in message
        and os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64") in message
    )


@pytest.mark.parametrize("damage", ["json", "no layers", "layer gone", "no command"])
def test_a_damaged_image(pyrun: Pyrun, damage: str) -> None:
    name = hostile.put_image(pyrun, "damaged", None, Cmd=[])
    (path,) = pyrun.root.glob(f"images/{hostile.EVIL}*/image.json")
    record = json.loads(path.read_text())
    if damage == "json":
        path.write_text(path.read_text()[:50])
    elif damage == "no layers":
        path.write_text(json.dumps({key: value for key, value in record.items() if key != "layers"}))
    elif damage == "layer gone":
        shutil.rmtree(record["layers"][0])
    refused(pyrun, 125, *RUN, name, *([] if damage == "no command" else ["true"]))


@pytest.mark.parametrize(
    "change",
    [
        {"process": None}, {"process": {"args": []}}, {"process": {"args": ["true"], "cwd": "relative"}},
        {"root": None},
        {"root": {"path": "nope"}}, {"root": {"path": "config.json"}}, {"mounts": 5},
        {"mounts": [{"destination": ""}]},
        {"linux": {"namespaces": [{"type": "frob"}]}}, {"linux": {"namespaces": [{"type": "user"}]}},
        {"hooks": {"prestart": [{"path": "/x"}]}},
        {"mounts": [{"destination": "/x", "type": "nosuchfs"}]},
        {"mounts": [{"destination": "/x", "type": "bind", "source": "/no"}]},
        {"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}], "resources": {"pids": {"limit": "many"}}}},
    ],
)  # fmt: skip
def test_a_bad_bundle(pyrun: Pyrun, tmp_path: Path, change: dict[str, object]) -> None:
    bundle = hostile.put_bundle(pyrun, tmp_path / "bundle")
    config = json.loads((bundle / "config.json").read_text()) | change
    (bundle / "config.json").write_text(json.dumps(config))
    refused(pyrun, 125, "run", "--bundle", str(bundle), "x")
    (bundle / "config.json").write_text("{")
    refused(pyrun, 125, "run", "--bundle", str(bundle), "x")


# ── who asks, and where ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [(*RUN, "busybox", "true"), ("exec", "x", "true"), ("ps",), ("rm", "x"),
("images",), ("stop", "x"),
                                   ("network", "prune"), ("system", "reconcile"),
                                   ("pull", "-q", "busybox")])  # fmt: skip
def test_without_root(pyrun: Pyrun, words: tuple[str, ...]) -> None:
    """One line that names sudo, for whoever cannot read the store."""
    pyrun.ok(*RUN, "busybox", "true")
    before = hostile.stored(pyrun)
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(pyrun.binary), *words]
    done = subprocess.run(
        command, env=pyrun.env, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/"
    )
    assert "Traceback" not in done.stderr and "bug in pyrun" not in done.stderr, done
    check_line(done, done.returncode)
    assert done.returncode in (1, 125) and ("root" in done.stderr or "sudo" in done.stderr), done
    assert hostile.stored(pyrun) == before


@pytest.mark.parametrize(
    "missing", ["cap_sys_admin", "cap_net_admin", "cap_mknod", "cap_setuid", "cap_setpcap"]
)
@pytest.mark.parametrize("options", [("--rm",), ("--rm", "--net=none"), ("-d", "--name=x")])
def test_root_that_may_not(pyrun: Pyrun, missing: str, options: tuple[str, ...]) -> None:
    """As inside another container: the step that the kernel refuses is named, and all before it is undone."""
    pyrun.ok("run", "--rm", "busybox", "true")  # the network stands
    before = hostile.stored(pyrun)
    command = [
        "setpriv",
        f"--bounding-set=-{missing[4:]}",
        "--inh-caps=-all",
        str(pyrun.binary),
        "run",
        *options,
    ]
    done = subprocess.run(
        [*command, "busybox", "true"], env=pyrun.env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if missing == "cap_net_admin" and "--net=none" in options:
        assert done.returncode in (0, 125), done  # lo is brought up with it, or by nobody
        return
    check_line(done, 125)
    assert "hint: " in done.stderr and hostile.stored(pyrun) == before, (done, hostile.stored(pyrun) ^ before)


def test_a_file_system_without_room_for_a_start(pyrun: Pyrun, tmp_path: Path) -> None:
    """The run directory on a full disk: the start is refused, and what it made is gone."""
    pyrun.ok(*RUN, "busybox", "true")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=14", "full", str(pyrun.root / "containers")],
        check=True,
    )
    try:
        with open(pyrun.root / "containers" / "fill", "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        before = hostile.stored(pyrun)
        done = pyrun(*RUN, "busybox", "true")
        assert done.returncode == 125 and done.stderr.startswith("pyrun: "), done
        assert "No space left" in done.stderr and len(done.stderr.splitlines()) <= 2, done
        assert hostile.stored(pyrun) == before
    finally:
        subprocess.run(["umount", str(pyrun.root / "containers")], check=True)

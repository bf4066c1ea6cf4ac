"""`pyrun run --bundle`: an OCI bundle as runc runs it; the judge is runc itself, with `runc spec`'s config."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import capabilities
from command import Pyrun

runc = pytest.mark.needs("runc")
Config = dict[str, object]

# What a container can tell of itself; sections are compared one by one.
PROBES = {
    "mounts": "cut -d' ' -f4- /proc/self/mountinfo | sed 's/ master:[0-9]*//' | sort -k2",
    "dev": "cd /dev; for i in $(ls -1); do stat -c '%n %F %a %u:%g %t:%T' $i; readlink $i; done; true",
    "status": "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Umask|Sig(Blk|Ign))' /proc/self/status",
    "limits": "cat /proc/self/limits",
    "names": "hostname; pwd; id; tty; env | sort",
    "process": "cut -d' ' -f4-6 /proc/1/stat; cat /proc/self/oom_score_adj",
    "cgroup": "cat /proc/self/cgroup",
    "hidden": "for i in /proc/kcore /proc/keys /proc/timer_list /proc/acpi /sys/firmware; do ls -A $i | wc -l; done",
    "refused": "for i in /proc/sys/kernel/x /proc/irq/x /sys/x /sys/fs/cgroup/x /x; do touch $i 2>&1; done; true",
    "links": "ls /sys/class/net; cat /sys/class/net/lo/operstate; ip -o addr",
    "sysctl": "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax",
    "shm": "stat -f -c '%S %b' /dev/shm; touch /dev/shm/x /dev/mqueue/x && echo writable",
}


@pytest.fixture
def bundle(pyrun: Pyrun, tmp_path: Path) -> SimpleNamespace:
    """A bundle with the busybox image's files and `runc spec`'s config, or what that would be."""
    directory = tmp_path / "bundle"
    directory.mkdir()
    (layer,) = json.loads(next(pyrun.root.glob("images/*/image.json")).read_text())["layers"]
    subprocess.run(["cp", "-a", layer, str(directory / "rootfs")], check=True)
    subprocess.run(["runc", "spec"], cwd=directory, check=True)
    made = json.loads((directory / "config.json").read_text())

    def write(change: Callable[[Config], None] | None = None, script: str = "true") -> str:
        config: Config = json.loads(json.dumps(made))
        config["process"]["terminal"] = False  # type: ignore[index]
        config["process"]["args"] = ["sh", "-c", script]  # type: ignore[index]
        config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 500, "hard": 600}]  # type: ignore[index]
        if change:
            change(config)
        (directory / "config.json").write_text(json.dumps(config))
        return str(directory)

    return SimpleNamespace(directory=directory, write=write)


def ours(pyrun: Pyrun, directory: str, *words: str, name: str = "probe") -> str:
    return pyrun.ok("run", *words, "--bundle", directory, name)


def theirs(pyrun: Pyrun, directory: str, name: str = "probe") -> str:
    state = pyrun.runroot.with_name(pyrun.runroot.name + "-runc")
    done = subprocess.run(
        ["runc", "--root", str(state), "run", "--bundle", directory, name],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    subprocess.run(["rm", "-rf", str(state)], check=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


def sections(output: str) -> dict[str, list[str]]:
    parts = re.split(r"^== (\w+)$", output, flags=re.MULTILINE)[1:]
    return {name: text.strip().splitlines() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def settled(name: str, lines: list[str]) -> list[str]:
    """Without the differences there are, each with its reason."""
    if name == "mounts":
        result = []
        for line in lines:
            root, target, options, *_ = line.split()
            if target.startswith("/sys/fs/cgroup") or target == "/":
                # Both bind each v1 hierarchy's own directory; pyrun's container sees it as / by its cgroup namespace.
                # pyrun's tmpfs around them is read-only too.
                root, options = "/", "ro" if target != "/" else options
                if target.endswith("/unified"):
                    continue
            if root == "/null":  # a masked file: runc binds the container's /dev/null, pyrun the host's
                options = "null"
            kind = line.split(" - ")[1].split()[0] if root != "/null" else "null"
            result.append(f"{root} {target} {options} {kind}")
        # /etc masked in part and then read-only as a whole: pyrun copies the mask, runc masks after it
        return sorted(set(result))
    if name == "cgroup":  # without linux.cgroupsPath everybody has a place of his own
        return [line.replace(":/pyrun-", ":/") for line in lines]
    # runc hands down which signals its caller ignores, pyrun does not (tests/system/test_signals.py)
    if name == "status":
        return ["SigIgn:" if line.startswith("SigIgn:") else line for line in lines]
    if name == "refused":  # the tmpfs around the v1 hierarchies, see above
        return [
            line.replace("cgroup/x: Permission denied", "cgroup/x: Read-only file system") for line in lines
        ]
    return lines


def differences(mine: dict[str, list[str]], judge: dict[str, list[str]]) -> str:
    assert list(mine) == list(judge) == list(PROBES)
    pairs = {name: (settled(name, mine[name]), settled(name, judge[name])) for name in PROBES}
    return json.dumps({name: pair for name, pair in pairs.items() if pair[0] != pair[1]}, indent=1)


@runc
def test_a_probe_sees_what_it_sees_under_runc(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    script = "; ".join(f"echo '== {name}'; ({probe}) 2>&1" for name, probe in PROBES.items())
    directory = bundle.write(None, script)
    mine, judge = sections(ours(pyrun, directory)), sections(theirs(pyrun, directory))
    assert differences(mine, judge) == "{}"


def _everything(config: dict[str, dict[str, object]]) -> None:
    config["hostname"] = "bundled"  # type: ignore[assignment]
    config["process"].update(
        user={"uid": 1000, "gid": 1001, "additionalGids": [7, 1001, 2000], "umask": 0o027},
        cwd="/tmp", env=["PATH=/bin:/usr/bin:/sbin", "A=b c"], oomScoreAdj=100, noNewPrivileges=True,
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
    )  # fmt: skip
    sets = config["process"]["capabilities"]
    for name in ("bounding", "permitted", "inheritable", "ambient"):
        sets[name] = ["CAP_NET_BIND_SERVICE", "CAP_KILL"]  # type: ignore[index]
    sets["effective"] = ["CAP_KILL"]  # type: ignore[index]
    config["root"]["readonly"] = False
    config["linux"].update(
        sysctl={"net.core.somaxconn": "99", "kernel.msgmax": "7000"},
        devices=[{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}],
        seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]},
        maskedPaths=["/proc/keys", "/sys/firmware", "/etc/passwd", "/nosuch"],
        readonlyPaths=["/proc/sys", "/etc", "/nosuch"],
    )  # fmt: skip
    mounts = config["mounts"]
    mounts += [  # type: ignore[operator]
        {
            "destination": "/t",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "size=64k", "mode=1700"],
        },
        {
            "destination": "/in",
            "type": "bind",
            "source": "rootfs/bin",
            "options": ["rbind", "ro", "nosuid", "nodev"],
        },
        {"destination": "/deep/new/file", "type": "bind", "source": "config.json", "options": ["bind", "ro"]},
    ]


@runc
def test_a_config_that_uses_everything(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    script = "; ".join(f"echo '== {name}'; ({probe}) 2>&1" for name, probe in PROBES.items())
    directory = bundle.write(_everything, script)
    mine, judge = sections(ours(pyrun, directory)), sections(theirs(pyrun, directory))
    assert differences(mine, judge) == "{}"
    assert "bundled" in mine["names"] and any("NoNewPrivs:\t1" in line for line in mine["status"])


@runc
def test_the_cgroup_is_where_the_config_says(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    def change(config: dict[str, dict[str, object]]) -> None:
        config["linux"]["cgroupsPath"] = "/tested/here"
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "cgroup"]  # type: ignore
        config["linux"]["resources"] = {"pids": {"limit": 30}, "memory": {"limit": 64 << 20}}

    limit = "/sys/fs/cgroup/pids.max" if capabilities.cgroup2() else "/sys/fs/cgroup/pids/pids.max"
    directory = bundle.write(change, f"cat /proc/self/cgroup; cat {limit}")
    mine = set(ours(pyrun, directory).splitlines())
    assert {line.split(":", 2)[2] for line in mine if ":" in line} == {"/tested/here"}
    for parent in Path("/sys/fs/cgroup").glob("**/tested"):
        parent.rmdir()  # as runc, pyrun leaves the parent it was told: but nothing in it


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exec nosuch", 127)])
@runc
def test_exit_status(pyrun: Pyrun, bundle: SimpleNamespace, script: str, status: int) -> None:
    assert pyrun("run", "--bundle", bundle.write(None, script)).returncode == status


@runc
def test_a_command_that_is_not_there(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    directory = bundle.write(lambda config: config["process"].update(args=["nosuch"]))  # type: ignore[attr-defined]
    assert "no such command" in pyrun.fails(127, "run", "--bundle", directory, "probe")


@runc
def test_streams_are_the_callers_own(pyrun: Pyrun, bundle: SimpleNamespace, tmp_path: Path) -> None:
    directory = bundle.write(None, "cat; echo err >&2")
    done = pyrun("run", "--bundle", directory, input="abc")
    assert (done.stdout, done.stderr) == ("abc", "err\n")
    directory = bundle.write(None, "stat -Lc '%d %i' /proc/self/fd/1")
    with open(tmp_path / "out", "w") as out:
        subprocess.run(
            [str(pyrun.binary), "run", "--bundle", directory], env=pyrun.env, stdout=out, check=True
        )
    status = (tmp_path / "out").stat()
    assert (tmp_path / "out").read_text().split() == [str(status.st_dev), str(status.st_ino)]


@runc
def test_terminal(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    directory = bundle.write(
        lambda config: config["process"].update(terminal=True),  # type: ignore[attr-defined]
        "tty; stat -c %t:%T /dev/console; exit 3",
    )
    script = "import pty,sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    done = subprocess.run(
        [sys.executable, "-c", script, str(pyrun.binary), "run", "--bundle", directory],
        env=pyrun.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (3, ["/dev/pts/0", "88:0"]), done


@runc
def test_root_paths(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    """Relative to the bundle, absolute, read-only or not; a relative --bundle."""
    for path in ("rootfs", "./rootfs/../rootfs", str(bundle.directory / "rootfs")):
        directory = bundle.write(lambda config, path=path: config["root"].update(path=path), "echo fine")
        assert ours(pyrun, directory) == "fine"
    done = pyrun("run", "--bundle", "bundle", cwd=bundle.directory.parent)
    assert done.stdout == "fine\n"
    directory = bundle.write(lambda config: config["root"].update(readonly=True), "touch /made || echo no")  # type: ignore
    assert ours(pyrun, directory) == "no"
    directory = bundle.write(lambda config: config["root"].update(readonly=False), "touch /made && echo yes")  # type: ignore
    assert ours(pyrun, directory) == "yes" and (bundle.directory / "rootfs/made").exists()
    assert not os.path.ismount(bundle.directory / "rootfs")


@runc
def test_an_id_that_is_taken_and_ids_that_are_none(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    directory = bundle.write(None, "echo ready; exec sleep 60")
    first = pyrun.start("run", "--bundle", directory, "taken")
    assert first.stdout and first.stdout.readline() == "ready\n"
    assert "taken" in pyrun.fails(125, "run", "--bundle", directory, "taken")
    assert first.poll() is None, "the one that runs was harmed"
    for name in ("../x", "a/b", "", "x" * 2000):
        pyrun.fails(125, "run", "--bundle", directory, name)
    first.kill()
    first.wait()
    pyrun.ok("system", "reconcile")


@runc
def test_networks(pyrun: Pyrun, bundle: SimpleNamespace) -> None:
    """lo alone by default, where runc leaves it down... and the bridge if asked for."""
    directory = bundle.write(None, "ls /sys/class/net | tr '\\n' ' '; ip route | grep -c default")
    assert pyrun("run", "--bundle", directory).stdout.split() == ["lo", "0"]
    assert pyrun("run", "--net=bridge", "--bundle", directory, "wired").stdout.split() == ["eth0", "lo", "1"]
    shared = bundle.write(
        lambda config: config["linux"].update(
            namespaces=[{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]
        ),  # type: ignore
        "readlink /proc/self/ns/net",
    )
    assert ours(pyrun, shared) == str(Path("/proc/self/ns/net").readlink())
    assert "no network namespace" in pyrun.fails(125, "run", "--net=bridge", "--bundle", shared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("process"), "process: is required"),
        (lambda config: config["process"].update(cwd="tmp"), "process.cwd"),
        (lambda config: config["process"].update(args=[]), "process.args"),
        (lambda config: config["root"].update(path="nosuch"), "root.path"),
        (lambda config: config["root"].update(path="config.json"), "not a directory"),
        (lambda config: config.update(hooks={"poststop": [{"path": "true"}]}), "hooks.poststop[0].path"),
        (lambda config: config["linux"].update(sysctl={"kernel.panic": "1"}), "sysctl['kernel.panic']"),
        (lambda config: config["linux"].update(namespaces=[{"type": "pid"}]), "linux.namespaces"),
        (lambda config: config["mounts"].append({"destination": ""}), "mounts[7].destination"),
    ],
)  # fmt: skip
@runc
def test_bad_configs(
    pyrun: Pyrun, bundle: SimpleNamespace, change: Callable[[Config], None], message: str
) -> None:
    assert message in pyrun.fails(125, "run", "--bundle", bundle.write(change), "bad")
    assert not list((pyrun.runroot / "containers").glob("*"))


def test_no_bundle_at_all(pyrun: Pyrun, tmp_path: Path) -> None:
    assert "config.json" in pyrun.fails(125, "run", "--bundle", str(tmp_path / "nosuch"))
    (tmp_path / "config.json").write_text("{")
    assert "config.json: line 1 column 2" in pyrun.fails(125, "run", "--bundle", str(tmp_path))
    assert "takes no image" in pyrun.fails(125, "run", "--bundle", str(tmp_path), "id", "busybox")

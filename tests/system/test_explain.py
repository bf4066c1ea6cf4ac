"""--explain and --dry-run: the plan as text and JSON, nothing touched; what it says can be typed, and is true."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

import hostile
import leftovers
from command import Pyrun
from waiting import until

# A run that has most kinds of operations.
MUCH = [
    "--net=bridge", "--name", "web", "-p", "8080:80", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "--init",
    "--read-only", "--tmpfs", "/t", "--sysctl", "net.core.somaxconn=77", "-u", "1000", "-w", "/made",
    "--security-opt", "no-new-privileges", "--ulimit", "nofile=90:100", "-v", "/etc:/in:ro", "-e", "A=1",
]  # fmt: skip

# Nothing in a shell does these, or nothing is to be seen; every other kind has both.
NO_SHELL = {"GUARD", "LEASE", "PORT", "COMMIT", "RESOLVER", "WAIT_GO", "SECCOMP", "NETNS_ENTER"}
NO_SEE = {"WAIT_GO", "ANNOUNCE"}


def plan(pyrun: Pyrun, *options: str, how: str = "--dry-run") -> list[dict[str, str]]:
    done = pyrun("run", how, "--explain=json", *options, "busybox", "sleep", "60")
    assert done.returncode == 0, done.stderr
    operations: list[dict[str, str]] = json.loads(done.stdout.splitlines()[0])["operations"]
    return operations


def everything(pyrun: Pyrun) -> list[object]:
    """The host, the store and the run directory: what --dry-run must not touch."""
    files = {}
    for top in (pyrun.root, pyrun.runroot, Path("/run/netns")):
        for path in sorted(top.rglob("*")) if top.exists() else []:
            status = path.lstat()
            files[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
    sockets = Path("/proc/net/tcp").read_text().count(" 0A ")
    return [leftovers.picture(), files, pyrun.runroot.exists(), sockets]


@pytest.mark.parametrize("style", [[], ["--explain"], ["--explain=json"]])
@pytest.mark.parametrize("used", [False, True])
def test_a_dry_run_touches_nothing(pyrun: Pyrun, style: list[str], used: bool) -> None:
    """On a fresh host, and on one whose bridge and directories are there."""
    if used:
        pyrun.ok("run", "-d", "--net=bridge", "--name", "other", "busybox", "sleep", "60")
        until(lambda: list(pyrun.root.glob("containers/*/log")), "the log, which the monitor makes")
    before = everything(pyrun)
    for options in (MUCH, ["--net=none", "--rm"], ["--net=host", "--privileged"], ["-d", "-t"]):
        done = pyrun("run", "--dry-run", *style, *options, "busybox", "sh")
        assert (done.returncode, done.stderr) == (0, "")
    assert everything(pyrun) == before


def test_a_dry_run_pulls_nothing(pyrun: Pyrun) -> None:
    before = everything(pyrun)
    done = pyrun("run", "--dry-run", "--net=none", "nosuch:1", "true")
    assert done.returncode == 0 and "image nosuch:1 is not here" in done.stderr
    assert everything(pyrun) == before


def test_a_dry_run_finds_what_is_wrong(pyrun: Pyrun) -> None:
    for options in (
        ["-m", "1"],
        ["--cap-add", "FLY"],
        ["-p", "x"],
        ["-u", "who"],
        ["--net=nowhere"],
        ["-w", "x"],
    ):
        pyrun.fails(125, "run", "--dry-run", *options, "busybox", "true")


def test_every_operation_is_explained(pyrun: Pyrun) -> None:
    operations = plan(pyrun, *MUCH)
    assert len(operations) > 80
    for each in operations:
        assert set(each) == {"by", "kind", "arguments", "sentence", "shell", "see"}
        assert re.fullmatch(r"[a-z].*[^.]", each["sentence"]), each
        assert bool(each["shell"]) == (each["kind"] not in NO_SHELL), each
        assert bool(each["see"]) == (each["kind"] not in NO_SEE), each
        assert not re.search(
            r"\{\w*\}|memsw.*\?|\$ROOT|\$ID", each["sentence"] + each["shell"] + each["see"]
        ), each


def test_text_and_json_are_the_same_plan(pyrun: Pyrun) -> None:
    text = pyrun.ok("run", "--dry-run", *MUCH, "busybox", "sleep", "60")
    operations = plan(pyrun, *MUCH)
    sentences = re.findall(r"^ *\d+\. (.*)$", text, re.MULTILINE)
    numbers = [int(number) for number in re.findall(r"^ *(\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(operations) + 1))

    def anonymous(sentence: str) -> str:
        return re.sub(r"\$ID|[0-9a-f]{64}|[0-9a-f]{12}", "X", sentence)

    assert [anonymous(each["sentence"]) for each in operations] == [anonymous(each) for each in sentences]


def test_the_order_is_the_one_things_happen_in(pyrun: Pyrun) -> None:
    kinds = [each["kind"] for each in plan(pyrun, *MUCH)]
    wanted = [
        "NETWORK", "LEASE", "cgroup-make", "clone", "CGROUP_JOIN", "UNSHARE", "PROPAGATION", "ROOT_OVERLAY", "MOUNT",
        "DEVICE", "MASK", "READONLY", "NETNS_NAME", "VETH", "ADDRESS", "ROUTE", "WAIT_GO", "PIVOT", "ROOT_READONLY",
        "DIRECTORY_CURRENT", "BOUNDING", "IDENTITY", "CAPABILITIES", "NO_NEW_PRIVILEGES", "SECCOMP", "REAPER",
        "ENVIRONMENT", "EXECUTE",
    ]  # fmt: skip
    assert [kinds.index(kind) for kind in wanted] == sorted(kinds.index(kind) for kind in wanted)
    assert kinds[-1] == "EXECUTE"


def test_the_undo_list_is_the_one_that_is_written(pyrun: Pyrun) -> None:
    shown = json.loads(pyrun.ok("run", "--dry-run", "--explain=json", *MUCH, "busybox", "sleep", "60"))[
        "undo"
    ]
    pyrun.ok("run", "-d", *MUCH, "busybox", "sleep", "60")
    written = (pyrun.runroot / "containers" / str(pyrun.state("web")["id"]) / "undo").read_text().splitlines()

    def verbs(lines: list[str]) -> list[str]:
        return [line.split("\t")[0] for line in lines if not line.startswith("#")]

    assert verbs(shown) == verbs(written)


def test_explain_runs_it_too(pyrun: Pyrun) -> None:
    done = pyrun("run", "--rm", "--explain", "--net=none", "busybox", "sh", "-c", "echo ran; exit 3")
    assert (done.returncode, done.stdout) == (3, "ran\n")
    assert "execute sh -c 'echo ran; exit 3': this process becomes the container's" in done.stderr
    assert "undo list" in done.stderr


def test_a_bundle_with_much_of_its_own(pyrun: Pyrun, tmp_path: Path) -> None:
    """All that is done is told, once, by whom and when: also hooks, the ids of a user namespace, what is joined."""
    (tmp_path / "rootfs").mkdir()
    subprocess.run([str(pyrun.binary.with_name("pyrun-oci")), "spec"], cwd=tmp_path, check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    ids = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    config["process"]["terminal"] = False
    config["linux"] |= {"uidMappings": ids, "gidMappings": ids}
    kinds = [{"type": "time"}, {"type": "user"}, {"type": "uts", "path": "/proc/1/ns/uts"}]
    config["linux"]["namespaces"] = [
        each for each in config["linux"]["namespaces"] if each["type"] != "uts"
    ] + kinds
    arguments = ["sh", "-c", 'echo "a  b"']
    config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": arguments}]
        for kind in ("prestart", "createContainer", "poststart", "poststop")
    }
    del config["hostname"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ("--dry-run", "--explain=json", "--network=bridge", "--bundle", str(tmp_path), "own")
    told = json.loads(pyrun.ok("run", *words))["operations"]
    sentences = [(each["by"], each["sentence"]) for each in told]
    hook = "run the hook /bin/sh{}, with the container's state on its standard input"
    wanted = [
        (
            "planner",
            "join the uts namespace that is to be shared, which root of the user namespace may not",
        ),
        ("planner", "make new namespaces (pid, network, ipc, mount, time, user) and start init in them"),
        ("planner, meanwhile", "bring eth0 up inside"),
        ("planner, meanwhile", hook.format(" (prestart)")),
        ("init, after GO", hook.format("")),
        ("init, after GO", "execute sh: this process becomes the container's"),
        ("planner, poststart", hook.format(" (poststart)")),
        ("planner, poststop", hook.format(" (poststop)")),
    ]
    assert [sentences.count(each) for each in wanted] == [1] * len(wanted), sentences
    assert [sentences.index(each) for each in wanted] == sorted(sentences.index(each) for each in wanted)
    assert sum(each["kind"] == "admit" for each in told) == 1
    (inner,) = [each["shell"] for each in told if each["kind"] == "HOOK"]
    assert inner.endswith("""env -i /bin/sh -c 'echo "a  b"'""")


def test_the_id_of_a_bundle_is_no_part_of_other_words(pyrun: Pyrun, tmp_path: Path) -> None:
    """One of 64 digits is shown as $ID; of `a`, every a in the text would be."""
    (tmp_path / "rootfs").mkdir()
    subprocess.run([str(pyrun.binary.with_name("pyrun-oci")), "spec"], cwd=tmp_path, check=True)
    text = pyrun.ok("run", "--dry-run", "--bundle", str(tmp_path), "a")
    assert "export ID=a\n" in text and f"export ROOT={tmp_path}/rootfs\n" in text
    assert f"make the directory {tmp_path}/rootfs the container's root\n" in text


def test_timings(pyrun: Pyrun) -> None:
    done = pyrun("run", "--rm", "--explain=json", "--net=bridge", "busybox", "sleep", "0.2")
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [sorted(line) for line in lines] == [
        ["id", "name", "operations", "undo"],
        ["timings"],
        ["timings"],
    ]
    stages = {row["stage"]: row["ms"] for line in lines[1:] for row in line["timings"]}
    assert list(stages) == [
        "launcher and interpreter", "imports", "options, image, config, plan", "undo list, cgroups, files",
        "clone and exec of init", "network from outside", "init, up to execve", "the command", "exit and undo",
    ]  # fmt: skip
    assert all(0 <= value < 5000 for value in stages.values()), stages
    assert 150 < stages.pop("the command") < 1000
    assert stages["launcher and interpreter"] > 0.5 and stages["exit and undo"] > 0.05


# ── what it says can be typed ──────────────────────────────────────────────────────────────────────


def evidence(operation: dict[str, str]) -> str:
    """A word that the see-it command must print, if the operation was carried out."""
    argument = [str(each) for each in operation["arguments"]]
    return {
        "MOUNT": lambda: argument[0], "BIND": lambda: argument[0], "ROOT_OVERLAY": lambda: "overlay",
        "SYMLINK": lambda: f"-> {argument[1]}", "HOSTNAME": lambda: argument[0],
        "SYSCTL": lambda: argument[1].split()[0],
        "cgroup-write": lambda: argument[1], "CGROUP_JOIN": lambda: "/pyrun/", "IDENTITY": lambda: argument[0],
        "NETNS_NAME": lambda: "web", "VETH": lambda: "master pyrun0", "ADDRESS": lambda: f"{argument[0]}/{argument[1]}",
        "ROUTE": lambda: f"default via {argument[0]}", "PUBLISH": lambda: "8080", "RLIMIT": lambda: argument[1],
        "NO_NEW_PRIVILEGES": lambda: "NoNewPrivs:\t1", "SECCOMP": lambda: "Seccomp:\t2", "BOUNDING": lambda: "a80425fb",
        "ENVIRONMENT": lambda: "A=1", "ROOT_READONLY": lambda: "ro,", "DIRECTORY_CURRENT": lambda: "/made",
        "NETWORK": lambda: "pyrun0", "PORT": lambda: "", "READONLY": lambda: "ro,",
    }.get(operation["kind"], lambda: "")()  # fmt: skip


def test_what_to_see_is_seen(pyrun: Pyrun) -> None:
    """Every see-it command of a running container works, and shows what the sentence claims."""
    done = pyrun("run", "-d", "--explain=json", *MUCH, "busybox", "sleep", "60")
    assert done.returncode == 0, done.stderr
    operations = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))[
        "operations"
    ]
    pid = str(pyrun.state("web")["pid"])
    text = pyrun.ok("run", "--dry-run", "busybox", "sh")
    (asked,) = re.findall(r"^export PID=.*$", text, re.MULTILINE)
    found = ["sh", "-c", f"ID={pyrun.state('web')['id']}\n{asked}\necho $PID"]
    assert subprocess.run(found, capture_output=True, text=True).stdout.strip() == pid
    environment = pyrun.env | {"PATH": f"{pyrun.binary.parent}:{pyrun.env['PATH']}"}
    seen, wrong = set(), []
    for operation in operations:
        path = str((operation["arguments"] or [""])[0])
        optional = operation["kind"] in ("MASK", "READONLY") and not Path(f"/proc/{pid}/root{path}").exists()
        if optional or not operation["see"] or operation["kind"] == "FORGET_FLOWS":
            continue
        if operation["kind"] == "cgroup-write" and not Path(operation["see"].split()[1]).exists():
            continue  # memory.memsw: not on every kernel
        command = operation["see"].replace("$PID", pid)
        if command.startswith("bpftool"):
            continue  # not installed with us
        shown = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=20
        )
        if shown.returncode or not shown.stdout or evidence(operation) not in shown.stdout:
            wrong.append((operation["kind"], command, evidence(operation), shown.stdout[-300:], shown.stderr))
        seen.add(operation["kind"])
    assert not wrong, "\n".join(map(str, wrong))
    assert len(seen) > 30


def test_very_many_volumes(pyrun: Pyrun) -> None:
    """An image declares as many as 4 MiB hold. Each line of the plan looked through all operations, each volume through
    all mounts: 4,000 took minutes."""
    hostile.put_image(pyrun, "many", None, Volumes={f"/v{number}/data": {} for number in range(4000)})
    for options in ((), ("--read-only", "-v", "/tmp:/v1")):
        done = pyrun("run", "--dry-run", *options, "many", "true", timeout=30)
        assert done.returncode == 0 and done.stdout.count("/data") >= 4000, done.stderr

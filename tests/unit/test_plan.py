"""From options to operations: the order that is law, the encoding, and the explanation of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyrun import stages, verdict
from pyrun.plan import explain, plan
from pyrun.plan.operations import Operation
from pyrun.spec import config as configs

REPOSITORY = Path(__file__).resolve().parents[2]
OPS = REPOSITORY / "csrc/ops.h"
PACKAGE = REPOSITORY / "runtime/pyrun"
IMAGE = {
    "layers": ["/l1", "/l2"],
    "config": {"Cmd": ["sh"], "Env": ["A=image", "B=image"], "WorkingDir": "/srv"},
}
HIERARCHIES = [("memory", "/sys/fs/cgroup/memory", "/"), ("unified", "/sys/fs/cgroup/unified", "/")]


def make(
    options: dict[str, object] | None = None, command: list[str] | None = None
) -> tuple[dict, list[Operation]]:
    container = {
        "id": "a" * 64,
        "name": "n",
        "hostname": "h",
        "keep": "/keep",
        "layers": [],
        "mode": "none",
        "image": "x",
    }
    config = configs.build(options or {}, IMAGE, command or [], container)
    job = {
        **container, "layers": ["/l2", "/l1"], "hierarchies": HIERARCHIES, "namespaces": ["cgroup"],
        "rm": True, "loopback": True,
        "cgroups": [("memory", "/sys/fs/cgroup/memory/pyrun/x"), ("unified", "/sys/fs/cgroup/unified/pyrun/x")],
        "seccomp": (5, 0), "window": None,
    }  # fmt: skip
    return config, plan.compose(config, job)


def places(operations: list[Operation]) -> dict[str, int]:
    return {operation.kind: index for index, operation in enumerate(operations)}


def test_the_order_that_is_law() -> None:
    _, operations = make({"read_only": True, "init": True})
    at = places(operations)
    order = [
        "CGROUP_JOIN", "UNSHARE", "PROPAGATION", "ROOT_OVERLAY", "DEVICE", "MASK", "WAIT_GO", "PIVOT", "ROOT_READONLY",
        "DIRECTORY_CURRENT", "SECCOMP", "BOUNDING", "IDENTITY", "CAPABILITIES", "ENVIRONMENT", "EXECUTE",
    ]  # fmt: skip
    assert [at[kind] for kind in order] == sorted(at[kind] for kind in order)
    assert operations[-1] == Operation("EXECUTE", "sh")


def test_seccomp_is_last_under_no_new_privileges() -> None:
    _, operations = make({"security_opt": ["no-new-privileges"]})
    at = places(operations)
    assert at["CAPABILITIES"] < at["NO_NEW_PRIVILEGES"] < at["SECCOMP"]


def test_environment_precedence_is_dockers(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nB=file\nC=file\n")
    config, _ = make({"env": ["C=option"], "env_file": [str(file)]})
    environment = dict(item.split("=", 1) for item in config["process"]["env"])
    assert (environment["A"], environment["B"], environment["C"]) == ("image", "file", "option")
    assert environment["HOSTNAME"] == "h"
    assert environment["HOME"] == "/"
    assert "TERM" not in environment


def test_a_variable_nobody_has_a_value_for_is_taken_away() -> None:
    config, _ = make({"env": ["A", "HOSTNAME", "B=1"]})
    assert [each.partition("=")[0] for each in config["process"]["env"]] == ["PATH", "B", "HOME"]


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "option", "command", "expected"),
    [
        (["e"], ["c"], None, [], ["e", "c"]),
        (["e"], ["c"], None, ["x"], ["e", "x"]),
        (["e"], ["c"], "o", [], ["o"]),
        (["e"], ["c"], "o", ["x"], ["o", "x"]),
        (["e"], ["c"], "", ["x"], ["x"]),
        (None, ["c"], None, [], ["c"]),
    ],
)
def test_what_is_executed(
    entrypoint: object, cmd: object, option: object, command: list[str], expected: list[str]
) -> None:
    image = {"config": {"Entrypoint": entrypoint, "Cmd": cmd}}
    assert configs.arguments({"entrypoint": option}, image, command) == expected


def test_limits_become_resources() -> None:
    config, _ = make({"memory": "64m", "cpus": "0.5", "pids_limit": 9})
    resources = config["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert resources["cpu"] == {"quota": 50000, "period": 100000}
    assert resources["pids"] == {"limit": 9}


def test_privileged_hides_nothing() -> None:
    config, operations = make({"privileged": True})
    assert config["linux"]["maskedPaths"] == [] == config["linux"]["readonlyPaths"]
    assert not any(operation.kind in ("MASK", "READONLY") for operation in operations)


def test_capabilities_are_for_root_alone() -> None:
    config, _ = make({"user": "1000"})
    assert config["process"]["capabilities"]["effective"] == []
    assert len(config["process"]["capabilities"]["bounding"]) == 14
    assert config["process"]["capabilities"]["inheritable"] == []


def test_encoding_is_what_init_reads() -> None:
    encoded = plan.encode(
        [Operation("HOSTNAME", "häuschen"), Operation("PIVOT"), Operation("RLIMIT", 7, -1, -1)]
    )
    fields = encoded.decode().split("\0")
    assert fields[1:3] == ["1", "häuschen"]
    assert fields[4] == "0"
    assert fields[6:] == ["3", "7", "-1", "-1", ""]


def numbers() -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"#define OP_(\w+) (\d+)", OPS.read_text())}


def test_every_kind_has_its_own_number_a_handler_and_an_explanation() -> None:
    known = numbers()
    last = known.pop("LAST")
    assert len(set(known.values())) == len(known) and max(known.values()) <= last
    init = (OPS.parent / "init.c").read_text()
    for kind in known:
        assert f"[OP_{kind}] = {{op_" in init, kind
        assert explain._explainer(kind), kind


def test_every_operation_of_a_plan_is_explained() -> None:
    _, operations = make(
        {"read_only": True, "init": True, "tty": True, "ulimit": ["nofile=1:2"], "user": "5:6"}
    )
    for operation in operations:
        sentence, shell, see = explain.explain(operation)
        assert sentence, operation
        assert "\n" not in sentence + shell + see
        assert "{0}" not in sentence + shell + see


def test_a_mount_twice_is_refused() -> None:
    from pyrun.errors import UsageError

    with pytest.raises(UsageError, match="/data"):
        make({"tmpfs": ["/data"], "volume": ["/tmp:/data"]})


def test_a_failure_is_told_of_the_stage_that_planned_it() -> None:
    """The file in stages/ that has the operation; mounts are told as rootfs, as is a working directory made there."""
    wrong = []
    own_words = ("EXECUTE", "LOOK_UP", "HOOK")
    elsewhere = {"DIRECTORY": "rootfs", "LOOPBACK_UP": "network"}
    for kind in (match[3:] for match in re.findall(r"#define (OP_[A-Z0-9_]+) +[0-9]+ ", OPS.read_text())):
        files = [
            path for path in (PACKAGE / "stages").glob("*.py") if f'Operation("{kind}"' in path.read_text()
        ]
        told = verdict.STAGE_OF.get(kind, "rootfs")
        stems = [elsewhere.get(kind) or path.stem.replace("mounts", "rootfs") for path in files]
        if files and told not in stems and kind not in own_words:
            wrong.append(f"{kind}: {told}, not {stems}")
    assert not wrong
    # plan.py itself
    planned = {"WAIT_GO": "process", "START": "process", "PRESERVE": "process", "NO_IPV6": "network"}
    assert planned == {kind: verdict.STAGE_OF.get(kind) for kind in planned}


def test_every_key_of_a_job_is_told() -> None:
    told = set(re.findall(r"\w+", (stages.__doc__ or "").partition("A `job` is")[2]))
    used = set()
    for path in PACKAGE.rglob("*.py"):
        if "network" not in path.relative_to(PACKAGE).parts[:1]:  # a CNI plugin's job is another
            used |= set(re.findall(r'\bjob(?:\[|\.get\(|\.pop\()"(\w+)"', path.read_text()))
    assert len(used) > 30 and not used - told - {"mode"}, used - told  # mode: of the network's request

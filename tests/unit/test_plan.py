"""From options to operations: the order that is law, the encoding, and the explanation of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs import container_of, job_of
from pyrun.errors import UsageError
from pyrun.plan import catalogue, plan
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
    options: dict[str, object] | None = None, command: list[str] | None = None, **other: object
) -> tuple[dict, list[Operation]]:
    config = configs.build(options or {}, IMAGE, command or [], container_of(**other))
    job = job_of(
        HIERARCHIES, [("memory", "/sys/fs/cgroup/memory/pyrun/x"), ("unified", "/sys/fs/cgroup/unified/pyrun/x")],
        keep="/keep", layers=["/l2", "/l1"], namespaces=["cgroup"], rm=True, loopback=True, seccomp=(5, 0),
    )  # fmt: skip
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


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ([], False),
        (["no-new-privileges"], True),
        (["no-new-privileges:true"], True),
        (["no-new-privileges=false"], False),
        (["no-new-privileges", "no-new-privileges=false"], False),
        (["no-new-privileges=false", "seccomp=/a:b", "no-new-privileges"], True),
        (["label:disable", "apparmor=unconfined", "seccomp:unconfined"], False),
    ],
)
def test_no_new_privileges_is_what_was_said_last(texts: list[str], wanted: bool) -> None:
    config, operations = make({"security_opt": texts})
    assert config["process"]["noNewPrivileges"] is wanted
    assert ("NO_NEW_PRIVILEGES" in places(operations)) is wanted


@pytest.mark.parametrize("first", [[], ["no-new-privileges"], ["seccomp=unconfined"]])
@pytest.mark.parametrize(
    "text",
    ["", "=", "=x", "x", "apparmor=mine", "apparmor", "label", "seccomp", "seccompx=a", "no-new-privileges=no",
     "systempaths=x", "systempaths:unconfined", "systempaths"],
)  # fmt: skip
def test_protection_nobody_gives_is_refused_beside_any_other(first: list[str], text: str) -> None:
    """Who asks for an AppArmor profile is not to believe that it is there."""
    with pytest.raises(UsageError, match="--security-opt"):
        make({"security_opt": [*first, text]})


def test_environment_precedence_is_dockers(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nB=file\nC=file\n")
    config, _ = make({"env": ["C=option"], "env_file": [str(file)]})
    environment = dict(item.split("=", 1) for item in config["process"]["env"])
    assert (environment["A"], environment["B"], environment["C"]) == ("image", "file", "option")
    assert environment["HOSTNAME"] == "h"
    assert environment["HOME"] == "/"
    assert "TERM" not in environment


def test_home_is_what_a_volume_over_the_passwd_file_says(tmp_path: Path) -> None:
    """The user is the image's, as with Docker; its HOME is found by whoever starts the container, in what it sees."""
    (tmp_path / "passwd").write_text("me:x:1000:1000::/home/me:/bin/sh\n")
    config, _ = make({"user": "1000", "volume": [f"{tmp_path}/passwd:/etc/passwd:ro"]})
    assert "HOME=/home/me" in config["process"]["env"]


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


@pytest.mark.parametrize("options", [{"privileged": True}, {"security_opt": ["systempaths=unconfined"]}])
def test_what_hides_nothing(options: dict[str, object]) -> None:
    config, operations = make(options)
    assert config["linux"]["maskedPaths"] == [] == config["linux"]["readonlyPaths"]
    assert not any(operation.kind in ("MASK", "READONLY") for operation in operations)


def mounts(options: dict[str, object]) -> dict[str, dict]:
    config, _ = make(options)
    found = {each["destination"]: each for each in config["mounts"]}
    assert len(found) == len(config["mounts"])
    return found


USUAL = {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}
FILES = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}


def test_what_is_mounted_without_a_word() -> None:
    found = mounts({})
    assert set(found) == USUAL | FILES
    assert {place for place in USUAL if "ro" in found[place]["options"]} == {"/sys", "/sys/fs/cgroup"}
    assert all("nosuid" in found[place]["options"] for place in USUAL)
    assert "size=67108864" in found["/dev/shm"]["options"]
    assert not any("ro" in found[place]["options"] for place in FILES)
    assert {found[place]["source"] for place in FILES} == {f"/keep/{place[5:]}" for place in FILES}


def test_a_read_only_container_cannot_write_its_files_in_etc() -> None:
    found = mounts({"read_only": True})
    assert all("ro" in found[place]["options"] for place in FILES)


def test_what_the_caller_mounts_takes_the_place_of_ours() -> None:
    assert mounts({"tmpfs": ["/dev/shm:size=1m"]})["/dev/shm"]["options"] != mounts({})["/dev/shm"]["options"]
    assert mounts({"volume": ["/tmp:/etc/hosts"]})["/etc/hosts"]["source"] == "/tmp"
    assert set(mounts({"volume": ["/tmp:/dev"]})) == {"/proc", "/dev", "/sys", "/sys/fs/cgroup"} | FILES
    assert set(mounts({"volume": ["/tmp:/device"]})) == USUAL | FILES | {"/device"}
    with pytest.raises(UsageError, match="two mounts go to /a"):
        make({"volume": ["/tmp:/a"], "tmpfs": ["/a"]})


def test_the_shallow_is_mounted_before_what_lies_in_it() -> None:
    config, _ = make({"volume": ["/tmp:/etc/a/b", "/tmp:/etc"]})
    order = [each["destination"] for each in config["mounts"]]
    assert order.index("/etc") < order.index("/etc/hosts") < order.index("/etc/a/b")


def test_only_the_privileged_may_write_to_sys() -> None:
    found = mounts({"privileged": True})
    assert not any("ro" in each["options"] for each in found.values())


@pytest.mark.parametrize(
    ("other", "network"),
    [
        ({}, [{"type": "network"}]),
        ({"mode": "host"}, []),
        ({"netns": "/n"}, [{"type": "network", "path": "/n"}]),
    ],
)
def test_only_a_network_namespace_of_its_own_gets_settings(other: dict[str, object], network: object) -> None:
    """Those of the host or of another container are not ours to change; what the user asks for is another matter."""
    section = make(**other)[0]["linux"]
    assert [each for each in section["namespaces"] if each["type"] == "network"] == network
    assert {each["type"] for each in section["namespaces"]} >= {"mount", "pid", "uts", "ipc", "cgroup"}
    assert bool(section["sysctl"]) == (not other)
    asked, _ = make({"sysctl": ["kernel.shmmni=5", "net.ipv4.ip_unprivileged_port_start=80"]})
    assert (
        asked["linux"]["sysctl"] | {"kernel.shmmni": "5", "net.ipv4.ip_unprivileged_port_start": "80"}
        == (asked["linux"]["sysctl"])
    )


def test_devices_are_refused_before_some_are_allowed() -> None:
    rules = make()[0]["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "type": "a", "access": "rwm"}
    assert {"allow": True, "type": "c", "access": "rwm", "major": 1, "minor": 3} in rules
    assert {"allow": False, "type": "c", "access": "rwm", "major": 10, "minor": 229} in rules


@pytest.mark.parametrize(
    ("option", "image", "expected"), [("", "", "/"), ("", "/srv", "/srv"), ("/a//b/../c", "/srv", "/a/c")]
)
def test_the_directory_is_the_callers_then_the_images(option: str, image: str, expected: str) -> None:
    config = configs.build({"workdir": option}, {"config": {"WorkingDir": image}}, ["sh"], container_of())
    assert config["process"]["cwd"] == expected  # type: ignore[index]


@pytest.mark.parametrize("directory", ["srv", "/a\0b", "../a"])
def test_a_directory_that_is_none(directory: str) -> None:
    with pytest.raises(UsageError, match="is not an absolute path"):
        make({"workdir": directory})


def test_a_terminal_has_a_kind() -> None:
    environment = make({"tty": True})[0]["process"]["env"]
    assert "TERM=xterm" in environment
    assert make({"tty": True})[0]["process"]["terminal"] is True


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


def test_operations_are_values() -> None:
    """The other tests compare them: two that differ in anything must not be equal."""
    one = Operation("RLIMIT", 7, -1, -1)
    assert one == Operation("RLIMIT", 7, -1, -1) and len({one, Operation("RLIMIT", 7, -1, -1)}) == 1
    for other in (Operation("RLIMIT", 7, -1), Operation("RLIMIT", 7, -1, 1), Operation("SYSCTL", 7, -1, -1),
                  Operation("RLIMIT", "7", -1, -1), ("RLIMIT", 7, -1, -1), None):  # fmt: skip
        assert one != other
    assert repr(one) == "RLIMIT(7, -1, -1)" and repr(Operation("HOSTNAME", "a'b")) == 'HOSTNAME("a\'b")'


def numbers() -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r"#define OP_(\w+) (\d+)", OPS.read_text())}


def test_every_kind_has_its_own_number_a_handler_and_an_explanation() -> None:
    known = numbers()
    last = known.pop("LAST")
    assert len(set(known.values())) == len(known) and max(known.values()) <= last
    init = (OPS.parent / "init.c").read_text()
    for kind in known:
        assert f"[OP_{kind}] = {{op_" in init, kind
        assert catalogue.performer(kind) == "init", kind


def test_every_operation_of_a_plan_is_explained() -> None:
    _, operations = make(
        {"read_only": True, "init": True, "tty": True, "ulimit": ["nofile=1:2"], "user": "5:6"}
    )
    for operation in operations:
        sentence, shell, see = catalogue.explain(operation)
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
        told = catalogue.row(kind).stage
        stems = [elsewhere.get(kind) or path.stem.replace("mounts", "rootfs") for path in files]
        if files and told not in stems and kind not in own_words:
            wrong.append(f"{kind}: {told}, not {stems}")
    assert not wrong
    # plan.py itself
    planned = {"WAIT_GO": "process", "START": "process", "PRESERVE": "process", "NO_IPV6": "network"}
    assert planned == {kind: catalogue.row(kind).stage for kind in planned}

"""`run`'s options: with --bundle each has its effect or is refused; a bad value is told in the option's own words."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

import hostile
from command import Pyrun
from pyrun.cli.tables import VERBS
from waiting import until

RUN = ("run", "--rm", "--net=none")
ROWS = {row[2]: row for row in VERBS["run"][0]}
BRIDGE = ("--network=bridge",)

# Of what a bundle takes: (options beside it, its value, where it shows: what is there of the container, or inside).
EFFECTS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "dns": (BRIDGE, "192.0.2.7", "192.0.2.7"),
    "egress": (BRIDGE, "deny:192.0.2.0/24", "192.0.2.0/24"),
    "expose": ((*BRIDGE, "-P"), "7777", " 7777"),
    "ip": (BRIDGE, "10.77.0.99", "inet 10.77.0.99/16"),
    "ip6": (("--network=six",), "fd00:77::99", "inet6 fd00:77::99/64"),
    "mac_address": (BRIDGE, "02:00:00:00:77:01", "link/ether 02:00:00:00:77:01"),
    "name": ((), "chosen", "containers/chosen/"),
    "net_fault": (BRIDGE, "delay=1ms", "netem"),
    "net_rate": (BRIDGE, "out=10mbit", "10Mbit"),
    "network": ((), "bridge", "eth0@"),
    "network_alias": (BRIDGE, "store", "alias store"),
    "publish": (BRIDGE, "18099:80", "18099 80"),
    "publish_all": ((*BRIDGE, "--expose=7778"), "", " 7778"),
    "publish_through_firewall": ((*BRIDGE, "-p", "18098:80"), "", "through-firewall"),
}
# These have tests of their own below, or in test_bundle.py.
ELSEWHERE = ("bundle", "detach", "dry_run", "explain", "interactive", "rm", "sig_proxy")
VALUES = {"int": "7", "list": "x", "value": "x", "flag": "", "optional": ""}


def words_of(name: str, value: str) -> list[str]:
    option = next(each for each in ROWS[name][0] if each.startswith("--"))
    return [f"{option}={value}" if value else option]


def refused(pyrun: Pyrun, status: int, *words: str) -> str:
    """What it says, with the store as it was."""
    before = hostile.stored(pyrun)
    told = pyrun.fails(status, *words)
    assert len(told.splitlines()) <= 2 and "bug in pyrun" not in told, told
    assert hostile.stored(pyrun) == before
    return told


@pytest.fixture
def bundle(pyrun: Pyrun, tmp_path: Path) -> Path:
    return hostile.put_bundle(
        pyrun, tmp_path / "bundle", args=["sh", "-c", "ip addr; echo told; cat; sleep 100"]
    )


def seen(pyrun: Pyrun, name: str) -> str:
    """What is noted of the containers, what the command has seen, and how its links are slowed."""
    until(lambda: "told\n" in pyrun("logs", name).stdout, "what the command has seen")
    found = [f"{path.relative_to(pyrun.runroot)}/\n" for path in pyrun.runroot.rglob("*")]
    found += [path.read_text(errors="replace") for path in pyrun.runroot.rglob("*") if path.is_file()]
    tc = "tc qdisc show; tc class show; tc -n $0 qdisc show; tc -n $0 class show"
    return "".join(found) + pyrun("logs", name).stdout + subprocess.getoutput(tc.replace("$0", name))


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.needs("netem")) if name == "net_fault" else name
    for name in ROWS if name not in ELSEWHERE
])  # fmt: skip
def test_an_option_beside_a_bundle_has_its_effect_or_is_refused(
    pyrun: Pyrun, bundle: Path, name: str
) -> None:
    if name not in EFFECTS:
        words = words_of(name, VALUES[ROWS[name][1]])
        told = refused(pyrun, 125, "run", "--bundle", str(bundle), *words)
        assert f"--{name.replace('_', '-')}: no effect with --bundle\nhint: " in told
        assert "leave it out" not in told, "a remedy of its own"
        return
    beside, value, expected = EFFECTS[name]
    if name == "ip6":
        pyrun.ok("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six")
    whole = [*beside, *words_of(name, value)]
    ident = pyrun.ok("run", "-d", "--bundle", str(bundle), *whole)
    assert expected in seen(pyrun, ident)
    pyrun.ok("rm", "-f", ident)
    ident = pyrun.ok("run", "-d", "--bundle", str(bundle), *beside)
    assert expected not in seen(pyrun, ident)
    if beside == BRIDGE:  # without it there is nothing the option could be about
        assert "--" in refused(pyrun, 125, "run", "--bundle", str(bundle), *words_of(name, value))


def test_the_hosts_network_is_the_configs_to_say(pyrun: Pyrun, bundle: Path) -> None:
    told = refused(pyrun, 125, "run", "--bundle", str(bundle), "--net=host")
    assert "linux.namespaces" in told and "--network=host" in told


def test_a_bundle_in_the_background(pyrun: Pyrun, bundle: Path) -> None:
    assert pyrun.ok("run", "-d", "--bundle", str(bundle), "--name", "behind") == "behind"
    row = json.loads(pyrun.ok("ps", "--format", "json", "--no-trunc"))
    assert (row["ID"], row["State"]) == ("behind", "running")
    assert row["Command"] == "\"sh -c 'ip addr; echo told; cat; sleep 100'\""
    assert "LOOPBACK" in pyrun.ok("logs", "behind")
    assert pyrun.ok("exec", "behind", "echo", "in") == "in"
    assert "behind" in refused(pyrun, 125, "run", "-d", "--bundle", str(bundle), "behind")
    assert pyrun.ok("stop", "-t", "0", "behind") == "behind"
    assert hostile.stored(pyrun) == set(), "nothing outlives it"
    (bundle / "config.json").write_text((bundle / "config.json").read_text().replace('"sh"', '"nosuch"'))
    assert "no such command" in refused(pyrun, 127, "run", "-d", "--bundle", str(bundle), "behind")


def test_a_bundle_on_a_bridge_is_a_container_like_any_other(pyrun: Pyrun, bundle: Path) -> None:
    pyrun.ok("network", "create", "--subnet=10.1.0.0/24", "front")
    start = ("--bundle", str(bundle), *BRIDGE, "-p")
    pyrun.ok("run", "-d", *start, "8080:80", "job")
    before = pyrun.start("run", *start, "8081:80", "before")
    assert before.stdout and "LOOPBACK" in before.stdout.readline()
    rows = {row["ID"]: row for row in map(json.loads, pyrun.ok("ps", "--format=json").splitlines())}
    assert {name: row["Networks"] for name, row in rows.items()} == {"job": "bridge", "before": "bridge"}
    assert rows["job"]["Ports"] == "0.0.0.0:8080->80/tcp"
    assert rows["before"]["Ports"] == "0.0.0.0:8081->80/tcp"
    assert " 0.0.0.0:8080->80/tcp " in pyrun.ok("ps") and rows["job"]["Image"] == str(bundle)
    for name in rows:
        pyrun.ok("network", "connect", "--ip=10.1.0.9", "front", name)
        assert "inet 10.1.0.9/24" in pyrun.ok("exec", name, "sh", "-c", "ip addr show eth1")
        pyrun.ok("network", "disconnect", "front", name)
        assert "eth1" not in pyrun.ok("exec", name, "sh", "-c", "ip addr")
    pyrun.ok("port", "add", "job", "8082:82")
    assert pyrun.ok("port", "job") == "80/tcp -> 0.0.0.0:8080\n82/tcp -> 0.0.0.0:8082"
    pyrun.ok("network", "connect", "front", "job")  # both ends are to be taken away with it
    pyrun.ok("rm", "-f", *rows)
    assert hostile.stored(pyrun) == set(), "nothing outlives it"
    for kept in ("ports", "networks/front/leases", "networks/bridge/leases", "networks/policies"):
        assert not list((pyrun.runroot / kept).glob("[0-9]*")), kept


def test_a_bundle_without_a_network_of_ours_is_left_alone(pyrun: Pyrun, bundle: Path) -> None:
    pyrun.ok("run", "-d", "--bundle", str(bundle), "lone")
    expected = "pyrun: container lone is of a bundle, and was started without a network of pyrun's\nhint: "
    for words in ("connect bridge lone", "disconnect bridge lone", "policy lone none"):
        assert pyrun.fails(1, "network", *words.split()).startswith(expected)
    pyrun.ok("run", "-d", "--bundle", str(bundle), "--network=none", "later")
    pyrun.ok("network", "connect", "bridge", "later")
    assert "eth0" in pyrun.ok("exec", "later", "sh", "-c", "ip addr")


def test_the_directory_of_an_images_container_is_nobody_elses(pyrun: Pyrun, bundle: Path) -> None:
    pyrun.ok("run", "--net=none", "--name", "kept", "busybox", "true")
    (kept,) = (pyrun.root / "containers").iterdir()
    assert "exists" in refused(pyrun, 125, "run", "-d", "--bundle", str(bundle), kept.name)
    for words in (("-d", "--name=kept"), ("--name=kept",), ("kept",), ("-d", "kept"), ("--dry-run", "kept")):
        assert "'kept' is in use" in refused(pyrun, 125, "run", "--bundle", str(bundle), *words)
    for words in ((*BRIDGE, kept.name), ("-d", *BRIDGE, kept.name)):
        assert "exists" in refused(pyrun, 125, "run", "--bundle", str(bundle), *words)
    assert "the id" in refused(pyrun, 125, "run", "--bundle", str(bundle), "--name=one", "two")
    assert (kept / "container.json").exists()


def test_input_and_signals_of_a_bundle(pyrun: Pyrun, tmp_path: Path) -> None:
    """-i in the background keeps the input open; --sig-proxy=false keeps signals from it, and ends who waits."""
    reads = hostile.put_bundle(pyrun, tmp_path / "reads", args=["sh", "-c", "cat; echo ended; sleep 100"])
    pyrun.ok("run", "-d", "-i", "--rm", "--bundle", str(reads), "open")
    pyrun.ok("run", "-d", "--bundle", str(reads), "closed")
    assert "ended" in waited(pyrun, "closed") and "ended" not in pyrun.ok("logs", "open")
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    traps = hostile.put_bundle(pyrun, tmp_path / "traps", args=["sh", "-c", script])
    for options, signalled in (((), 3), (("--sig-proxy=false",), 143)):
        process = pyrun.start("run", *options, "--bundle", str(traps), "traps")
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(10) == signalled
        if signalled == 143:
            assert pyrun.ok("exec", "traps", "echo", "runs") == "runs"
            pyrun.ok("kill", "traps")


def waited(pyrun: Pyrun, name: str) -> str:
    for _ in range(100):
        if "ended" in (text := pyrun.ok("logs", name)):
            break
    return text


# ── values, in the option's own words ──────────────────────────────────────────────────────────────

OPEN_FILES = Path("/proc/sys/fs/nr_open").read_text().strip()
WORDED = [
    ("--pids-limit=99999999999999", "--pids-limit 99999999999999", "no limit"),
    ("--cpus=999999999999", "--cpus 999999999999", f"to {os.cpu_count()}"),
    (f"--cpus={(os.cpu_count() or 1) + 0.01}", "processors", f"from 0.01 to {os.cpu_count()}"),
    ("--cpus=0.001", "--cpus", "0.01"),
    ("--stop-timeout=-7", "--stop-timeout -7", "-1 for ever"),
    ("-v=/tmp:/proc/x", "--volume '/tmp:/proc/x'", "cpuinfo"),
    ("-v=/tmp:/proc", "--volume /tmp:/proc", "procfs"),
    ("-v=/proc/x", "--volume '/proc/x'", "cpuinfo"),
    ("-v=/etc/passwd", "--volume /etc/passwd: cannot make the directory", "on a directory"),
    ("-v=/sys/none", "--volume /sys/none: cannot show the root's own", "make the directory there first"),
    ("-v=/", "invalid --volume: '/'", "SRC:DST[:ro]; or an absolute path"),
    ("-v=name", "invalid --volume: 'name'", "SRC:DST[:ro]; or an absolute path"),
    ("-v=/etc/passwd:/etc", "--volume /etc/passwd:/etc", "a file on a file"),
    ("-v=/tmp:/etc/passwd", "--volume /tmp:/etc/passwd", "a file on a file"),
    ("--tmpfs=/proc", "--tmpfs '/proc'", "another directory"),
    ("--tmpfs=/proc/x", "--tmpfs '/proc/x'", "cpuinfo"),
    ("--tmpfs=/t:bogus", "--tmpfs /t:bogus", "size="),
    ("--tmpfs=/etc/passwd", "--tmpfs /etc/passwd", "directory"),
    ("-w=/etc/passwd", "--workdir", "/etc/passwd"),
    ("--workdir=/etc/passwd", "--workdir /etc/passwd", "directory"),
    ("--cap-add=nosuch", "--cap-add 'nosuch'", "NET_ADMIN"),
    ("--cap-drop=NET_ADMN", "--cap-drop 'NET_ADMN'", "did you mean"),
    ("--ulimit=nofile=-1", "--ulimit nofile=-1", f"nofile={OPEN_FILES}"),
    ("--platform=bogus", "--platform 'bogus'", "linux/amd64"),
    ("--platform=windows/amd64", "--platform", "linux/amd64"),
    ("--platform=a/b/c/d", "--platform", "linux/amd64"),
    ("--sysctl=net.core.somaxconn=x", "--sysctl net.core.somaxconn=x", "sysctl -a"),
    ("--env-file=/dev/zero", "--env-file '/dev/zero': larger than 1 MiB", "smaller"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "told", "remedy"), WORDED, ids=[row[0][:40] for row in WORDED])
def test_a_bad_value_names_option_value_and_remedy(pyrun: Pyrun, option: str, told: str, remedy: str) -> None:
    message, _, hint = refused(pyrun, 125, *RUN, option, "busybox", "true").partition("\nhint: ")
    assert told in message and remedy in hint + message and hint, (message, hint)
    assert "config.json" not in message and not message.startswith(("pyrun: rootfs", "pyrun: process")), (
        message
    )


def test_zero_is_no_limit(pyrun: Pyrun) -> None:
    script = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>&-; true"
    free = pyrun.ok(*RUN, "busybox", "sh", "-c", script)
    assert pyrun.ok(*RUN, "--cpus=0", "-m=0", "--pids-limit=0", "busybox", "sh", "-c", script) == free
    assert pyrun.ok(*RUN, "--cpus=0.5", "busybox", "sh", "-c", script) != free
    pyrun.ok(*RUN, f"--cpus={os.cpu_count()}", "busybox", "true")


def test_a_patience_longer_than_poll_can_take(pyrun: Pyrun) -> None:
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    options = ("-d", "--net=none", "--stop-timeout=99999999999", "--name=slow")
    pyrun.ok("run", *options, "busybox", "sh", "-c", script)
    for _ in range(100):
        if "ready" in pyrun.ok("logs", "slow"):
            break
    assert pyrun.ok("stop", "slow") == "slow"


def test_a_file_of_variables_is_read_before_the_name_is_held(pyrun: Pyrun, tmp_path: Path) -> None:
    pyrun.ok(*RUN, "busybox", "true")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("A=file\nB=file\n")
    options = ("--env-file", str(tmp_path / "fifo"), "--env-file", str(tmp_path / "file"), "-e", "B=given")
    waiting = pyrun.start(*RUN, "--name=held", *options, "busybox", "sh", "-c", "echo $A $B $C")
    for _ in range(3):
        assert pyrun.ok(*RUN, "--name=held", "busybox", "echo", "free") == "free"
    feeder = threading.Thread(target=(tmp_path / "fifo").write_text, args=("A=fifo\nC=fifo\n",))
    feeder.start()
    assert waiting.stdout and waiting.stdout.read() == "file given fifo\n"
    feeder.join(10)
    assert waiting.wait(10) == 0


def test_words_are_bytes_in_any_locale(pyrun: Pyrun, tmp_path: Path) -> None:
    """Of an ISO-8859-1 locale too: neither arguments nor variables nor paths are translated."""
    locale = tmp_path / "de_DE.ISO-8859-1"
    subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(locale)], capture_output=True, check=True
    )
    source = tmp_path / "m\u00fcll"
    source.mkdir()
    (source / "file").write_text("found\n")
    env = {"LOCPATH": str(tmp_path), "LC_ALL": locale.name}
    words = [
        "run",
        "--rm",
        "--net=none",
        "-e",
        "WORT=Stra\u00dfe \u20ac",
        "-v",
        f"{source}:/gr\u00fcn",
        "busybox",
    ]
    script = 'cat /gr*/file; printf %s "$WORT" "$1" | od -An -tx1'
    printed = pyrun.ok(*words, "sh", "-c", script, "sh", "\u00fc", env=env)
    expected = "Stra\u00dfe \u20ac\u00fc".encode()
    assert printed.splitlines()[0] == "found"
    assert bytes.fromhex("".join(printed.splitlines()[1:]).replace(" ", "")) == expected

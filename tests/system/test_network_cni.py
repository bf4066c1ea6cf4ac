"""--network cni:NAME: configurations of other engines, run through Debian's containernetworking-plugins."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from command import Pyrun
from published import fetch
from waiting import runs, until

pytestmark = [pytest.mark.needs("cni_plugins"), pytest.mark.alone]

SERVE = ["sh", "-c", "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www"]
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "lab",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni-lab",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "subnet": "10.99.0.0/24",
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": "/run/cni-lab",
            },
            "dns": {"nameservers": ["192.0.2.53"], "search": ["lab.test"]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

# A plugin of our own: notes how it is called; FAIL names the command it refuses.
RECORDER = """#!/bin/sh
cat >"$RECORDS/$CNI_COMMAND.$(basename $0).json"
env | grep ^CNI_ >"$RECORDS/$CNI_COMMAND.$(basename $0).env"
echo "$CNI_COMMAND $(basename $0)" >>"$RECORDS/calls"
if [ "$CNI_COMMAND" = "$FAIL" ] && [ "$(basename $0)" = second ]; then
    echo '{"cniVersion": "1.0.0", "code": 11, "msg": "no room", "details": "come back tomorrow"}'
    exit 1
fi
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:07", "sandbox": "'$CNI_NETNS'"}],
       "ips": [{"address": "10.98.0.7/24", "gateway": "10.98.0.1", "interface": 0}], "step": "'$(basename $0)'"}'
"""


@pytest.fixture
def configured(pyrun: Pyrun, tmp_path: Path) -> Iterator[Pyrun]:
    """pyrun with the network `lab` configured; afterwards what the plugins keep for ever is taken away."""
    directory = tmp_path / "net.d"
    directory.mkdir()
    (directory / "10-lab.conflist").write_text(json.dumps(NETWORK))
    (directory / "00-broken.conflist").write_text("{")
    pyrun.env["NETCONFPATH"] = str(directory)
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = forwarding.read_text()
    forwarding.write_text("1")
    yield pyrun
    pyrun("rm", "-f", *pyrun("ps", "-aq").stdout.split())
    tables = "; ".join(
        f"nft delete table {family} {name}" for family in ("ip", "ip6") for name in ("nat", "filter")
    )
    undo = f"ip link delete cni-lab; rm -rf /run/cni-lab; {tables}"
    subprocess.run(["sh", "-c", undo], capture_output=True, check=False)
    forwarding.write_text(before)


def reserved() -> list[str]:
    """The addresses host-local holds."""
    return sorted(path.name for path in Path("/run/cni-lab/lab").glob("10.*"))


def test_the_plugins_wire_the_container(configured: Pyrun, internet: SimpleNamespace) -> None:
    script = f"ip -4 -o addr show eth0; ip route; cat /etc/hosts /etc/resolv.conf; wget -qO- http://{internet.far}/"
    seen = configured.ok("run", "--rm", "-h", "shop", "--network=cni:lab", "busybox", "sh", "-c", script)
    assert "inet 10.99.0.2/24" in seen
    assert "default via 10.99.0.1 dev eth0" in seen
    assert "10.99.0.2\tshop" in seen
    assert "nameserver 192.0.2.53\nsearch lab.test" in seen, "what the result says of DNS"
    assert f"you are {internet.host}" in seen, "not masqueraded"
    assert reserved() == [], "DEL was not run"


def test_ports_by_the_capability_of_portmap(configured: Pyrun, internet: SimpleNamespace) -> None:
    configured.ok("run", "-d", "--name", "web", "-p", "8080:80", "--network=cni:lab", "busybox", *SERVE)
    assert fetch(f"{internet.host}:8080", at="neighbour") == "hello"
    record = json.loads(next(configured.root.glob("containers/*/container.json")).read_text())
    (wire,) = record["networks"]
    assert (wire["network"], wire["address"], wire["gateway"], wire["prefix"]) == (
        "cni:lab",
        "10.99.0.2",
        "10.99.0.1",
        24,
    )
    assert "0.0.0.0:8080->80/tcp" in configured.ok("ps")
    refused = configured("run", "--rm", "-p", "8080:80", "busybox", "true")
    assert refused.returncode == 125
    assert "8080/tcp is already published by container web" in refused.stderr
    configured.ok("rm", "-f", "web")
    assert reserved() == []
    rules = subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=True).stdout
    assert "8080" not in rules
    assert not list(configured.runroot.glob("ports/*"))


@pytest.fixture
def recorded(configured: Pyrun, tmp_path: Path) -> SimpleNamespace:
    """A chain of two plugins that note how they are called."""
    plugins, records = tmp_path / "plugins", tmp_path / "records"
    plugins.mkdir()
    records.mkdir()

    def write(fail: str) -> None:
        for name in ("first", "second"):
            (plugins / name).write_text(RECORDER.replace("$RECORDS", str(records)).replace("$FAIL", fail))
            (plugins / name).chmod(0o755)

    write("none")
    chain = [
        {"type": "first", "capabilities": {"bandwidth": True}},
        {"type": "second", "own": 1, "capabilities": {"portMappings": True}},
    ]
    conf = {"cniVersion": "1.0.0", "name": "chain", "plugins": chain}
    Path(configured.env["NETCONFPATH"], "20-chain.conflist").write_text(json.dumps(conf))
    configured.env["CNI_PATH"] = str(plugins)

    def read(name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((records / name).read_text())
        return found

    return SimpleNamespace(
        pyrun=configured, read=read, fail=write, calls=lambda: (records / "calls").read_text().splitlines(),
        env=lambda name: dict(line.split("=", 1) for line in (records / name).read_text().splitlines()),
    )  # fmt: skip


def test_add_and_del_as_the_specification_has_them(recorded: SimpleNamespace) -> None:
    recorded.pyrun.ok(
        "run",
        "--rm",
        "--name",
        "web",
        "-p",
        "127.0.0.1:8080:80/udp",
        "--network=cni:chain",
        "busybox",
        "true",
    )
    assert recorded.calls() == ["ADD first", "ADD second", "DEL second", "DEL first"]
    first, second = recorded.read("ADD.first.json"), recorded.read("ADD.second.json")
    assert first == {"type": "first", "cniVersion": "1.0.0", "name": "chain"}, "only what it declares"
    assert second["prevResult"]["step"] == "first"
    assert second["own"] == 1
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}
    assert second["runtimeConfig"] == {"portMappings": [mapping]}
    for name in ("DEL.first.json", "DEL.second.json"):
        assert recorded.read(name)["prevResult"]["step"] == "second", "DEL is told the last result of ADD"
    env = recorded.env("ADD.second.env")
    assert (env["CNI_IFNAME"], env["CNI_NETNS"]) == ("eth0", "/run/netns/web")
    assert len(env["CNI_CONTAINERID"]) == 64
    assert recorded.env("DEL.first.env")["CNI_NETNS"] == "/run/netns/web", (
        "the namespace is there until DEL is done"
    )


def test_an_add_that_fails_half_way_is_taken_back(recorded: SimpleNamespace) -> None:
    recorded.fail("ADD")
    error = recorded.pyrun.fails(125, "run", "--rm", "--network=cni:chain", "busybox", "true")
    assert error == "pyrun: cni:chain: plugin second: ADD: no room: come back tomorrow"
    assert recorded.calls() == ["ADD first", "ADD second", "DEL second", "DEL first"]
    assert not list(recorded.pyrun.runroot.glob("containers/*"))


def test_a_del_that_fails_is_told_and_the_rest_goes_on(recorded: SimpleNamespace) -> None:
    recorded.fail("DEL")
    done = recorded.pyrun("run", "--rm", "--network=cni:chain", "busybox", "true")
    assert "cni:chain: plugin second: DEL: no room: come back tomorrow" in done.stderr
    assert recorded.calls()[-1] == "DEL first"
    assert not list(recorded.pyrun.runroot.glob("containers/*"))


def test_after_a_crash_reconcile_runs_del(recorded: SimpleNamespace) -> None:
    """Monitor and container are killed at once; whoever comes next replays the undo list."""
    pyrun = recorded.pyrun
    pyrun.ok("run", "-d", "--name", "web", "--network=cni:chain", "busybox", "sleep", "1000")
    state = pyrun.state("web")
    subprocess.run(["kill", "-9", str(state["monitor_pid"]), str(state["pid"])], check=True)
    until(lambda: not runs(int(str(state["pid"]))), "the end of both")
    pyrun.ok("system", "reconcile")
    assert recorded.calls() == ["ADD first", "ADD second", "DEL second", "DEL first"]


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        ("nowhere", [], "--network cni:nowhere: no configuration in"),
        ("plain", ["-p", "8080:80"], "--network cni:plain: no plugin of"),
        ("old", [], "cniVersion '9.9': is not known here"),
        ("missing", [], "--network cni:missing: there is no plugin 'no-such-plugin' in"),
    ],
)
def test_bad_input(configured: Pyrun, network: str, more: list[str], message: str) -> None:
    for name, version, kind in (
        ("plain", "1.0.0", "bridge"),
        ("old", "9.9", "bridge"),
        ("missing", "1.0.0", "no-such-plugin"),
    ):
        conf = {"cniVersion": version, "name": name, "type": kind}
        Path(configured.env["NETCONFPATH"], f"{name}.conf").write_text(json.dumps(conf))
    error = configured.fails(125, "run", "--rm", *more, f"--network=cni:{network}", "busybox", "true")
    assert message in error
    assert not list(configured.runroot.glob("containers/*"))
    assert not list(configured.runroot.glob("ports/*"))


def test_a_dry_run_runs_no_plugin(recorded: SimpleNamespace) -> None:
    told = recorded.pyrun.ok("run", "--rm", "--dry-run", "--network=cni:chain", "busybox", "true")
    assert "run the plugins of the CNI network chain: first, second" in told
    with pytest.raises(FileNotFoundError):
        recorded.calls()

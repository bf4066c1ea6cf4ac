"""The rows of the network: its stage in a start, and first packets.

Not here: a thousand containers (thousand_rows.py), published ports (port_rows.py), names (dns_rows.py), whole starts on
a bridge or with a port (rows.py).
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from contenders import RUN, NoPeer, Peers, output
from hyperfine import Effort, MeasuringFailed, Samples
from network_work import NOT_COUNTED
from port_rows import INTERNET
from rows import Figure, Row

WORKER = Path(__file__).with_name("network_work.py")
PORT, HOST = 8099, "198.51.100.2"
STARTS, LOST_MS = 200, 500.0
STAGES = 4  # times as many as of other commands: they are short, and a round's first ones are its slowest
SLEEP = ("sleep", "1000")
NETAVARK = ("/usr/lib/podman/netavark", "/usr/libexec/podman/netavark")

# The tutorial's way into a network, bridge and namespace being there, as they are for all: eight commands, and two for
# the port.
BY_HAND = """
ip link add v{name} type veth peer name p{name}
ip link set p{name} netns {name}
ip netns exec {name} ip link set p{name} name eth0
ip netns exec {name} ip addr add 10.66.0.{number}/24 dev eth0
ip netns exec {name} ip link set eth0 up
ip link set v{name} master br666
ip link set v{name} up
ip netns exec {name} ip route add default via 10.66.0.1
iptables -t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to 10.66.0.{number}:80
iptables -A FORWARD -d 10.66.0.{number} -p tcp --dport 80 -j ACCEPT
"""


def timed(words: list[str], text: str = "", enter: tuple[str, ...] = ()) -> float:
    """The milliseconds a command takes. Raises MeasuringFailed."""
    began = time.monotonic()
    done = subprocess.run(
        [*enter, *words], input=text, capture_output=True, text=True, timeout=300, check=False
    )
    took_ms = (time.monotonic() - began) * 1000
    if done.returncode:
        raise MeasuringFailed(
            f"{' '.join(words[:6])}: status {done.returncode}: {(done.stderr + done.stdout)[-300:]}"
        )
    return took_ms


# ── the stage ──────────────────────────────────────────────────────────────────────────────────────


def stage_row(peers: Peers, effort: Effort) -> list[Figure]:
    """In process, with one published port, on a network that stands; against netavark and the tutorial's commands."""
    samples = {who: Samples() for who in ("pyrun", "netavark", "by hand")}
    missing: dict[str, str] = {}
    output(*peers.run("pyrun", "-d", "--name", "bench-stage", command=SLEEP))
    others = {"netavark": _netavark, "by hand": _by_hand}
    try:
        for _ in range(effort.rounds):
            words = [sys.executable, str(WORKER), "stage", str(effort.runs * STAGES), str(PORT)]
            samples["pyrun"].wall_ms += json.loads(output(*words))
            for who, measure in others.items():
                try:
                    samples[who].wall_ms += [] if who in missing else measure(effort.runs * STAGES)
                except NoPeer as problem:
                    missing[who] = str(problem)
    finally:
        peers.remove("pyrun", "bench-stage")
    what = "network stage with one published port, in process"
    ours = samples["pyrun"].median_ms
    figures = [Figure(what, ours=ours, limit=2.5, samples=samples)]
    for who, limit in (("netavark", 1 / 15), ("by hand", 1 / 20)):
        told = "the tutorial's eight `ip` and two `iptables`" if who == "by hand" else f"`{who} setup`"
        if who in missing:
            figures.append(Figure(what, told, limit=round(limit, 3), problem=missing[who]))
        else:
            figures.append(Figure(what, told, ours, samples[who].median_ms, round(limit, 3), samples=samples))
    return figures


def _netavark(times: int) -> list[float]:
    """Its set-up of one namespace after the other; the first, which makes the bridge, is not counted either."""
    program = next(
        (each for each in (*NETAVARK, shutil.which("netavark")) if each and Path(each).exists()), None
    )
    if program is None:
        raise NoPeer("netavark is not installed")
    taken_ms = []
    for number in range(times + NOT_COUNTED):
        name = f"bench{number}"
        text = json.dumps(_netavark_network(name, number))
        output("ip", "netns", "add", name)
        taken_ms.append(
            timed([program, "--config", str(RUN / "netavark"), "setup", f"/run/netns/{name}"], text)
        )
    for number in reversed(range(times + NOT_COUNTED)):
        name = f"bench{number}"
        text = json.dumps(_netavark_network(name, number))
        timed([program, "--config", str(RUN / "netavark"), "teardown", f"/run/netns/{name}"], text)
        output("ip", "netns", "delete", name)
    return taken_ms[NOT_COUNTED:]


def _netavark_network(name: str, number: int) -> dict[str, object]:
    port = {
        "container_port": 80,
        "host_ip": "",
        "host_port": PORT + 1 + number,
        "protocol": "tcp",
        "range": 1,
    }
    network = {"name": "bench", "id": "5" * 64, "driver": "bridge", "network_interface": "podman9", "internal": False,
               "ipv6_enabled": False, "dns_enabled": False, "ipam_options": {"driver": "host-local"},
               "subnets": [{"subnet": "10.67.0.0/24", "gateway": "10.67.0.1"}]}  # fmt: skip
    mine = {"interface_name": "eth0", "static_ips": [f"10.67.0.{number + 2}"]}
    return {"container_id": f"{number:064d}", "container_name": name, "port_mappings": [port],
            "networks": {"bench": mine}, "network_info": {"bench": network}}  # fmt: skip


def _by_hand(times: int) -> list[float]:
    """By one shell, as the page has it."""
    shell = ["sh", "-ec"]
    output(*shell, "ip link add br666 type bridge; ip addr add 10.66.0.1/24 dev br666; ip link set br666 up;"
                   " iptables -t nat -A POSTROUTING -s 10.66.0.0/24 -o eth0 -j MASQUERADE")  # fmt: skip
    taken_ms = []
    names = [f"bench{number}" for number in range(times + NOT_COUNTED)]
    for number, name in enumerate(names):
        output("ip", "netns", "add", name)
        script = BY_HAND.format(name=name, number=number + 2, port=PORT + 1 + number)
        taken_ms.append(timed([*shell, script]))
        timed([*shell, "\n".join(_taken_back(line) for line in script.splitlines()[-2:])])
    for name in names:
        output("ip", "netns", "delete", name)
    output(
        *shell, "ip link delete br666; iptables -t nat -D POSTROUTING -s 10.66.0.0/24 -o eth0 -j MASQUERADE"
    )
    return taken_ms[NOT_COUNTED:]


def _taken_back(line: str) -> str:
    return line.replace(" -A ", " -D ")


# ── the first packet ───────────────────────────────────────────────────────────────────────────────


def first_row(peers: Peers, effort: Effort) -> list[Figure]:
    """Right after `run -d` returns: from the host to the container, and from the internet to its published port."""
    count = min(STARTS, effort.rounds * effort.runs * 4)
    taken: dict[str, list[float]] = {"to the container": [], "through a published port": []}
    listed = Path("/var/tmp/pyrun-bench/pyrun/containers")
    for number in range(count):
        name = f"bench-first-{number}"
        identifier = output(*peers.run("pyrun", "-d", "--name", name, "-p", f"{PORT}:81", command=SLEEP))
        enter = ["nsenter", f"--net={INTERNET}"] if number % 2 else []
        address = (
            HOST
            if number % 2
            else json.loads((listed / identifier / "container.json").read_text())["address"]
        )
        which = "through a published port" if number % 2 else "to the container"
        words = [*enter, sys.executable, "-I", str(WORKER), "first", address, str(PORT if number % 2 else 81)]
        taken[which].append(float(output(*words)))
        peers.remove("pyrun", name)
    lost = [took for each in taken.values() for took in each if took > LOST_MS]
    notes = [f"{which} {statistics.median(each):.2f} ms" for which, each in taken.items() if each]
    what = f"first packets lost after {count} starts"
    return [Figure(what, unit="packets", limit=0, ours=float(len(lost)), notes=notes)]


ROWS: dict[str, Row] = {
    "network-stage": stage_row,
    "network-first": first_row,
}

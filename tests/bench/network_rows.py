"""The rows of the network: its stage in a start, the thousandth container, the end of a thousand, first packets.

Not here: published ports (port_rows.py), names (dns_rows.py), whole starts on a bridge or with a port (rows.py).
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from contenders import RUN, WORK, NoPeer, Peers, output
from hyperfine import Effort, MeasuringFailed, Samples, interleaved
from network_work import NOT_COUNTED
from port_rows import INTERNET
from rows import Figure, Row

WORKER = Path(__file__).with_name("network_work.py")
PORT, HOST = 8099, "198.51.100.2"
FEW, MANY, AT_ONCE = 9, 999, 4
OF_DOCKER = 40  # as many of Docker's are removed, for its time per container
STARTS, LOST_MS = 200, 500.0
SLEEP = ("sleep", "1000")
SERVE = ("nc", "-ll", "-p", "81", "-e", "cat")
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
            words = [sys.executable, str(WORKER), "stage", str(effort.runs), str(PORT)]
            samples["pyrun"].wall_ms += json.loads(output(*words))
            for who, measure in others.items():
                try:
                    samples[who].wall_ms += [] if who in missing else measure(effort.runs)
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


# ── a thousand ─────────────────────────────────────────────────────────────────────────────────────


def thousand_row(peers: Peers, effort: Effort) -> list[Figure]:
    """The start of one more beside FEW and beside MANY, then the end of all of them against Docker's."""
    command = {"pyrun": peers.run("pyrun", "--rm")}
    part = Effort(effort.rounds, effort.runs, effort.budget_s / 3)
    names = [f"bench-{number}" for number in range(MANY)]
    published = {name: PORT + 1 + number for number, name in enumerate(names[::10])}
    output(*command["pyrun"])
    before = traces()
    try:
        start(peers, names[:FEW], published)
        quiet = interleaved(command, part)["pyrun"]
        start(peers, names[FEW:], published)
        crowded = interleaved(command, part)["pyrun"]
        with ExitStack() as flows:  # flows that lead to some of them
            for port in published.values():
                sock = flows.enter_context(socket.create_connection((HOST, port), timeout=5))
                sock.sendall(b"anybody there?")
                sock.recv(100)
            led = len(traces()["flows"] - before["flows"])
            if led < len(published):
                raise MeasuringFailed(f"{led} flows lead to {len(published)} published ports")
            removed_ms = ending(peers, "pyrun", names) / MANY
    finally:
        peers.remove("pyrun", *names)
    left = {kind: len(found - before[kind]) for kind, found in traces().items() if found - before[kind]}
    starts = f"start number {MANY + 1} on one network against number {FEW + 1}"
    what = f"{MANY} containers stopped and removed, each"
    figures = [
        Figure(starts, "itself", crowded.median_ms, quiet.median_ms, 1.5,
               samples={"pyrun": crowded, f"pyrun beside {FEW}": quiet}),
        Figure(f"{MANY} containers removed: links, rules, leases, flows left", unit="things", limit=0,
               ours=float(sum(left.values())), notes=[f"{kind} {number}" for kind, number in left.items()]),
    ]  # fmt: skip
    return [*figures, _against_docker(peers, what, removed_ms)]


def _against_docker(peers: Peers, what: str, ours_ms: float) -> Figure:
    if not peers.docker:
        return Figure(what, "docker", limit=0.2, problem=peers.missing["docker"])
    names = [f"bench-{number}" for number in range(OF_DOCKER)]
    for name in names:
        output(*peers.run("docker", "-d", "--name", name, command=SLEEP))
    theirs_ms = ending(peers, "docker", names) / OF_DOCKER
    return Figure(what, "docker", ours_ms, theirs_ms, 0.2, notes=[f"of Docker's {OF_DOCKER}"])


def start(peers: Peers, names: list[str], published: dict[str, int]) -> None:
    """Detached containers, AT_ONCE at a time; published: the port of the host of those that have one."""
    listed = WORK / "numbers-network"
    ports = {name: f" -p {published[name]}:81" if name in published else "" for name in names}
    listed.write_text("".join(f"--name {name}{ports[name]}\n" for name in names))
    shell = shlex.join(peers.run("pyrun", "-d", "@", command=SERVE)).replace(" @ ", ' "$@" ')
    timed(["xargs", "-a", str(listed), "-L", "1", "-P", str(AT_ONCE), "sh", "-c", shell, "sh"])
    running = len(output(peers.pyrun, "ps", "-q").split())
    if running < len(names):
        raise MeasuringFailed(f"{running} containers are running, not {len(names)}")


def ending(peers: Peers, who: str, names: list[str]) -> float:
    """Milliseconds from `rm -f` of all to the moment in which none of their links is there any more."""
    program = [peers.pyrun] if who == "pyrun" else peers.docker
    prefix = "pyv" if who == "pyrun" else "veth"
    began = time.monotonic()
    timed([*program, "rm", "-f", *names])
    while any(path.name.startswith(prefix) for path in Path("/sys/class/net").iterdir()):
        if time.monotonic() - began > 300:
            raise MeasuringFailed("the links of removed containers stay")
        time.sleep(0.005)
    return (time.monotonic() - began) * 1000


def traces() -> dict[str, set[str]]:
    """What a container leaves on the network while it is there."""
    rules = subprocess.run(
        ["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=False
    ).stdout
    flows = Path("/proc/net/nf_conntrack")
    lines = flows.read_text().splitlines() if flows.exists() else []
    run = Path("/run/pyrun/networks")
    return {
        "links": {path.name for path in Path("/sys/class/net").glob("pyv*")},
        "rules": {line.strip() for line in rules.splitlines() if "pyv" in line or "10.77.0." in line},
        "leases": {str(path) for path in run.glob("*/leases/*")},
        "names": {path.name for path in Path("/run/netns").glob("*")},
        "flows": {line for line in lines if "=10.77." in line and "ASSURED" in line},
    }


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
    "network-thousand": thousand_row,
    "network-first": first_row,
}

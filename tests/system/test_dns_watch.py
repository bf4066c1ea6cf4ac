"""What the guard does about losses: `pyrun network reload`, soon, once, and not because of what that changed itself.

The command is a stand-in here, in an environment of its own around a copy of the binary: it writes down when it was
called, and what else the test wants.
"""

from __future__ import annotations

import os
import posix
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import leftovers
from name_server import Networks, processes
from pyrun.network import guard
from waiting import seconds_until, until

pytestmark = pytest.mark.alone

STAND_IN = """
import os, subprocess, sys, time
run = os.environ["PYRUN_RUNROOT"]
with open(run + "/calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
heal = run + "/heal"
if os.path.exists(heal):
    subprocess.run(["sh", "-e", heal], check=True)
"""


class Host:
    """A network, a guard with the stand-in, and our table as a start would have made it."""

    def __init__(self, base: Path, binary: Path) -> None:
        self.run = base / "run"
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        library = base / "env/lib" / version / "site-packages/pyrun"
        library.mkdir(parents=True)
        (base / "env/bin").mkdir()
        shutil.copy(binary, base / "env/bin/pyrun")
        (base / "env/bin/python3").symlink_to(os.path.realpath(sys.executable))
        (library / "boot_cold.py").write_text(STAND_IN)
        posix.environ[b"PYRUN_RUNROOT"] = str(self.run).encode()
        posix.environ[b"PYRUN_BINARY"] = str(base / "env/bin/pyrun").encode()
        self.networks = Networks(self.run, links=True)
        self.gateway = self.networks.network("dnsw", "10.96.0.1", "fd96::1")
        self.networks.lease("dnsw", "10.96.0.2", "a" * 64, "name web")
        # the gateway of a further subnet
        subprocess.run("ip address add 10.96.1.1/24 dev pyrdnsw".split(), check=True)
        self.forward("1")
        nft("add table inet pyrun", "add chain inet pyrun forward { type filter hook forward priority 0; }",
            "add rule inet pyrun forward accept")  # fmt: skip
        guard.need([self.gateway])

    def calls(self) -> int:
        """How often the stand-in was called."""
        path = self.run / "calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def heal_by(self, *lines: str) -> None:
        """What reload does from now on."""
        (self.run / "heal").write_text("\n".join(lines) + "\n")

    def forward(self, value: str) -> None:
        """Let this host forward packets, as a start does, or no more."""
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", name).write_text(value)

    def close(self) -> None:
        self.networks.close()
        self.forward("0")
        subprocess.run(["nft", "flush", "ruleset"], check=False)
        for name in (b"PYRUN_RUNROOT", b"PYRUN_BINARY"):
            posix.environ.pop(name, None)


def nft(*lines: str) -> None:
    subprocess.run(["nft", "-f", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def quiet(host: Host, seconds: float = 1.6) -> int:
    """The calls after a while."""
    time.sleep(seconds)
    return host.calls()


@pytest.fixture
def host(static_binary: Path, tmp_path: Path) -> Iterator[Host]:
    if subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout:
        pytest.fail("somebody's rules are in the way")
    with leftovers.nothing_is_left():
        made = Host(tmp_path, static_binary)
        yield made
        made.close()


@pytest.mark.parametrize(
    "command",
    [
        "nft flush ruleset",
        "nft delete table inet pyrun",
        "nft flush table inet pyrun",
        "nft flush chain inet pyrun forward",
        "ip link delete pyrdnsw",
        "ip link set pyrdnsw down",
        "ip address flush dev pyrdnsw",
        "ip address delete 10.96.1.1/24 dev pyrdnsw",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
    ],
)
def test_a_loss_is_noticed_within_a_second_and_once(host: Host, command: str) -> None:
    assert quiet(host, 0.5) == 0, "what a start does is no loss"
    subprocess.run(command.split(), check=True)
    assert seconds_until(lambda: host.calls() == 1, timeout_s=2.0) < 1.0
    assert (host.run / "calls").read_text() == "network reload --quiet\n"
    assert quiet(host) == 1


def test_it_sleeps_through_what_is_none_of_its_business(host: Host) -> None:
    status = Path("/proc", str(guard.status()["pid"]), "status")

    def woken() -> int:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["voluntary_ctxt_switches"])

    assert quiet(host, 0.5) == 0
    before = woken()
    for number in range(20):  # each command makes several messages
        for command in (
            "add {} type veth peer name in-{}",
            "set {} master pyrdnsw",
            "set {} up",
            "delete {}",
        ):
            subprocess.run(["ip", "link", *command.replace("{}", f"pyv-{number}").split()], check=True)
    assert woken() - before < 5
    assert host.calls() == 0


def test_a_rule_of_ours_in_a_foreign_chain(host: Host) -> None:
    rule = "add rule ip filter FORWARD"
    nft("add table ip filter", "add chain ip filter FORWARD", f'{rule} iifname "pyr*" accept comment "pyrun"',
        f'{rule} accept comment "mine"')  # fmt: skip
    assert quiet(host, 0.8) == 0
    rules = subprocess.run(
        ["nft", "-a", "list", "chain", "ip", "filter", "FORWARD"], capture_output=True, text=True
    ).stdout
    handles = {line.split('"')[-2]: line.split()[-1] for line in rules.splitlines() if "comment" in line}
    nft(f"delete rule ip filter FORWARD handle {handles['mine']}")
    assert quiet(host, 0.8) == 0, "somebody else's rule is none of ours"
    nft(f"delete rule ip filter FORWARD handle {handles['pyrun']}")
    until(lambda: host.calls() == 1, timeout_s=2.0)


def test_a_firewall_that_starts_is_looked_at(host: Host) -> None:
    nft(
        "add table inet strict",
        "add chain inet strict f { type filter hook forward priority 10; policy drop; }",
    )
    until(lambda: host.calls() == 1, timeout_s=2.0)


def test_busy_neighbours_are_no_reason(host: Host) -> None:
    """What Docker does for each of its containers, and what we do for ours."""
    nft("add table ip nat", "add chain ip nat DOCKER", "add table ip filter", "add chain ip filter DOCKER",
        "add map inet pyrun ports { type inet_service : ipv4_addr; }")  # fmt: skip
    for number in range(20):
        nft("add rule ip nat DOCKER tcp dport 80 counter", "flush chain ip nat DOCKER", "delete chain ip filter DOCKER",
            "add chain ip filter DOCKER", f"add element inet pyrun ports {{ {number} : 10.96.0.2 }}",
            f"delete element inet pyrun ports {{ {number} }}")  # fmt: skip
        subprocess.run("ip link add pyvtest type veth peer name pyvpeer && ip link set pyvtest master pyrdnsw up "
                       "&& ip link set pyvtest down && ip link delete pyvtest", shell=True, check=True)  # fmt: skip
    assert quiet(host) == 0


def test_what_reload_changes_does_not_call_it_again(host: Host) -> None:
    """It rebuilds the table and says so: one more look, which finds nothing to do, and that is all."""
    host.heal_by(
        f"[ -e {host.run}/done ] && exit 0",
        f"touch {host.run}/done; echo healed >>{host.run}/networks/events",
        "nft add table inet pyrun; nft delete table inet pyrun; nft add table inet pyrun",
        "ip link set pyrdnsw down; ip link set pyrdnsw up",
    )
    nft("delete table inet pyrun")
    until(lambda: host.calls() == 2, timeout_s=4.0)
    assert quiet(host, 2.5) == 2


def test_a_fight_gets_slower_and_slower(host: Host) -> None:
    """Somebody, or a fault of ours, lets every reload find something: 1, 2, 4 ... seconds between."""
    host.heal_by(
        f"echo healed >>{host.run}/networks/events", "nft add table inet pyrun; nft delete table inet pyrun"
    )
    nft("delete table inet pyrun")
    assert 2 <= quiet(host, 5.5) <= 3


def test_a_loss_while_reload_runs_is_not_missed(host: Host) -> None:
    """It found nothing to do, but meanwhile something went."""
    host.heal_by("sleep 0.6")
    nft("add table inet other", "add chain inet other f { type filter hook forward priority 10; }")
    until(lambda: host.calls() == 1, timeout_s=2.0)
    nft("delete table inet pyrun")
    until(lambda: host.calls() == 2, timeout_s=4.0)


def test_a_reload_that_hangs_is_ended(host: Host) -> None:
    """With the guard, at the latest."""
    host.heal_by("sleep 1000")
    nft("delete table inet pyrun")
    until(lambda: host.calls() == 1, timeout_s=2.0)
    os.kill(guard.status()["pid"], signal.SIGTERM)
    words = f"{host.run}/heal"
    until(lambda: not processes("boot_cold.py network reload"), timeout_s=2.0)
    for pid in processes(words) + processes("sleep 1000"):
        os.kill(pid, signal.SIGKILL)


# ── the guard itself ───────────────────────────────────────────────────────────────────────────────

REVIVED_S = 4.0  # a guard that lived for less than three seconds is not made anew before those are over


def test_a_guard_that_is_killed_is_missed_and_called_for_once(host: Host) -> None:
    """Its spare becomes the reload, which here makes no other; so nothing is left of either."""
    told = guard.status()
    os.kill(told["pid"], signal.SIGKILL)
    until(lambda: host.calls() == 1, timeout_s=REVIVED_S)
    assert (host.run / "calls").read_text() == "network reload --quiet\n"
    until(lambda: not Path(f"/proc/{told['spare']}").exists(), timeout_s=1.0)
    assert quiet(host) == 1 and guard.status() == {}


def test_a_guard_that_ends_as_it_is_to_is_not_missed(host: Host) -> None:
    """By SIGTERM as by the last lease: its spare is gone with it."""
    told = guard.status()
    os.kill(told["pid"], signal.SIGTERM)
    until(lambda: not Path(f"/proc/{told['spare']}").exists(), timeout_s=1.0)
    assert quiet(host, 3.5) == 0


def test_a_spare_that_is_killed_is_replaced(host: Host) -> None:
    """And the new one does what the old one would have done."""
    told = guard.status()
    os.kill(told["spare"], signal.SIGKILL)
    until(lambda: guard.status()["spare"] not in (0, told["spare"]), timeout_s=3.0)
    assert guard.status()["pid"] == told["pid"] and host.calls() == 0
    os.kill(told["pid"], signal.SIGKILL)
    until(lambda: host.calls() == 1, timeout_s=REVIVED_S)


def test_the_spare_holds_nothing_and_says_who_it_is(host: Host) -> None:
    """None of the guard's sockets, behind which nobody would be; its memory is the guard's."""
    pid = guard.status()["spare"]
    place = Path(f"/proc/{pid}")
    until(lambda: (place / "comm").read_text() == "pyrun-spare\n", timeout_s=1.0)
    assert (place / "cmdline").read_bytes().split(b"\0")[0] == b"pyrun-spare"
    held = {int(each.name): os.readlink(each) for each in (place / "fd").iterdir()}
    assert held.pop(3).startswith("pipe:") and held == dict.fromkeys(range(3), "/dev/null")
    own = [line for line in (place / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
    assert int(own[0].split()[1]) <= 128, own

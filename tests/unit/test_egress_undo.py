"""What undoes an egress policy: in which order, for whom; and tables made anew while policies change."""

from __future__ import annotations

import posix
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrun.engine import policy as engine
from pyrun.errors import NotFound
from pyrun.network import live_undo, rebuilding
from pyrun.network.egress import interfaces, policy, start
from pyrun.network.endpoint import Wire
from pyrun.store import state

IDENTIFIER = "a" * 64


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path).encode())
    (tmp_path / "containers" / IDENTIFIER).mkdir(parents=True)
    return tmp_path


def wire(run: Path, network: str, *claims: tuple[str, str]) -> Wire:
    """An interface with addresses, each claimed by (address, owner)."""
    leases = run / "networks" / network / "leases"
    leases.mkdir(parents=True)
    for address, owner in claims:
        (leases / address).write_text(f"{owner}\nname box\n")
    made = Wire(network)
    made.link = f"pyv{network}"
    for address, _ in claims:
        made.give(":" in address, address, 0, "")
    return made


def test_each_address_is_undone_for_whoever_claimed_it(run_directory: Path) -> None:
    first = wire(run_directory, "n1", ("10.1.0.2", f"{IDENTIFIER} 7 70"))
    second = wire(run_directory, "n2", ("10.2.0.2", f"{IDENTIFIER} 8 80"), ("fd00::2", f"{IDENTIFIER} 8 80"))
    lines = start.undo(IDENTIFIER, policy.Policy("none"), [first, second])
    assert lines[0] == f"unlink\t{policy.path(IDENTIFIER)}", "who makes the tables anew reads it"
    guards = [line.rsplit("/", 1)[1] for line in lines if line.startswith("guard\t")]
    assert guards == [
        f"10.1.0.2\t{IDENTIFIER} 7 70", f"10.2.0.2\t{IDENTIFIER} 8 80", f"fd00::2\t{IDENTIFIER} 8 80",
    ]  # fmt: skip
    assert lines.count("end") == 3 and lines[-1] == "end", (
        "all is done only while the address is the container's"
    )
    given = start.undo_of(policy.Policy("none"), first, "somebody 9 90")
    assert given[0].endswith("leases/10.1.0.2\tsomebody 9 90")


def test_names_are_a_matter_of_their_own(run_directory: Path) -> None:
    """What they resolved to is not known beforehand: before an address is given up, a program looks."""
    asked = policy.Policy("list")
    asked.domains = [("example.org", "*", "*")]
    one = wire(run_directory, "n1", ("10.1.0.2", f"{IDENTIFIER} 7 70"))
    lines = start.undo(IDENTIFIER, asked, [one])
    assert lines[0].startswith("finish\t") and lines[0].endswith(f"\t{policy.path(IDENTIFIER)}")
    assert lines[1] == f"unlink\t{policy.path(IDENTIFIER)}"
    others = start.undo(IDENTIFIER, policy.Policy("dns"), [one])
    assert not [line for line in others if line.startswith("finish")]
    assert interfaces.finish(policy.path(IDENTIFIER)) == [], "nothing is to be done twice"


def test_what_precedes_is_undone_before_the_address_is_given_up(run_directory: Path) -> None:
    live_undo.append(IDENTIFIER, ["unlink-if\tlease\towner"])
    live_undo.precede(IDENTIFIER, ["unlink\tfile", "guard\tlease\towner", "netlink\t12\t00", "end"])
    newer = ["unlink\tfile", "guard\tlease\towner", "netlink\t12\t11", "end"]
    live_undo.precede(IDENTIFIER, newer)
    assert Path(live_undo.path(IDENTIFIER)).read_text().count("guard") == 2, (
        "both, until the older one is gone"
    )
    live_undo.precede(IDENTIFIER, newer, instead=True)
    assert Path(live_undo.path(IDENTIFIER)).read_text().splitlines() == [*newer, "unlink-if\tlease\towner"]
    with pytest.raises(NotFound):
        live_undo.precede("b" * 64, newer)


def test_a_policy_for_one_that_ended_meanwhile_is_taken_away_again(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its undo list may have been executed before ours was in it: then its addresses would keep the policy."""
    box = wire(run_directory, "n1", ("10.1.0.2", f"{IDENTIFIER} 7 70"))
    known = {
        "id": IDENTIFIER,
        "name": "box",
        "mode": "bridge",
        "networks": [{**box.record(), "link": "pyv0"}],
    }
    answers = {"resolve": IDENTIFIER, "load": known, "status": "running", "process_alive": False}
    for name, answer in answers.items():
        monkeypatch.setattr(state, name, lambda _, answer=answer: answer)
    monkeypatch.setattr(engine, "_set", lambda identifier, _, wanted: policy.save(identifier, wanted))
    left: list[object] = []
    monkeypatch.setattr(rebuilding, "forget_strays", lambda: left.append(policy.load(IDENTIFIER)))
    with pytest.raises(NotFound, match="not running"):
        engine.change("box", "none")
    assert left == [None], "the file first, by which elements are strays"


def test_tables_are_made_again_when_a_policy_changed_meanwhile(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of the files is made while the tables are: what is in them at last is what the files say."""
    one = policy.Policy("none")
    changes = [lambda: policy.save(IDENTIFIER, one), lambda: policy.forget(IDENTIFIER)]
    assert built(monkeypatch, changes, lambda: len(policy.all_policies())) == [0, 1, 0]


@pytest.mark.parametrize("claim", ["networks/n1/leases/10.1.0.2", "ports/tcp-0.0.0.0-8080"])
def test_tables_are_made_again_when_a_container_came_or_went_meanwhile(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    """Also when another has taken what one gave up: its elements lead elsewhere."""
    path = run_directory / claim
    path.parent.mkdir(parents=True)
    other = path.parent / ".record"
    other.write_text("another")
    changes = [lambda: path.write_text("one"), lambda: other.replace(path), path.unlink]
    read = built(monkeypatch, changes, lambda: path.read_text() if path.exists() else "")
    assert read == ["", "one", "another", ""]


def built(
    monkeypatch: pytest.MonkeyPatch, changes: list[Callable[[], object]], read: Callable[[], object]
) -> list[object]:
    """What was read each time the tables were made, while each of *changes* came in between."""
    found: list[object] = []

    def build(sock: object) -> None:
        found.append(read())
        if changes:
            changes.pop(0)()

    monkeypatch.setattr(rebuilding, "_build", build)
    rebuilding.build(None)  # type: ignore[arg-type]
    return found

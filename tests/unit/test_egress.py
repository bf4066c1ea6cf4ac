"""Egress policies: their words, their ranges, their file, and the elements they become."""

from __future__ import annotations

import itertools
import posix
import random
import socket
from pathlib import Path

import pytest

from pyrun.errors import UsageError
from pyrun.network import messages
from pyrun.network.egress import boxes, elements, policy
from pyrun.network.egress.parse import parse, spelled


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(posix.environ, b"PYRUN_RUNROOT", str(tmp_path).encode())
    return tmp_path


def parsed(text: str) -> policy.Policy:
    found = parse(text)
    assert found is not None
    return found


# ── words ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "allow", "domains", "deny"),
    [
        ("10.0.0.0/8:443/tcp", [("10.0.0.0/8", "443", "tcp")], [], []),
        ("10.0.0.0/8/icmp", [("10.0.0.0/8", "*", "icmp")], [], []),
        ("192.0.2.1", [("192.0.2.1/32", "*", "*")], [], []),
        ("10.0.0.0/8:53", [("10.0.0.0/8", "53", "*")], [], []),
        ("192.0.2.1:80-90", [("192.0.2.1/32", "80-90", "*")], [], []),
        ("[fd00::/8]:53/udp", [("fd00::/8", "53", "udp")], [], []),
        ("fd00:0::1", [("fd00::1/128", "*", "*")], [], []),
        ("[fd00::1]", [("fd00::1/128", "*", "*")], [], []),
        ("0.0.0.0/0", [("0.0.0.0/0", "*", "*")], [], []),
        ("Example.ORG.", [], [("example.org", "*", "*")], []),
        ("*.example.org:443/tcp", [], [("*.example.org", "443", "tcp")], []),
        ("deny:169.254.169.254", [], [], ["169.254.169.254/32"]),
        ("deny:fd00::/8, deny:10.0.0.0/8", [], [], ["fd00::/8", "10.0.0.0/8"]),
    ],
)
def test_words_of_a_policy(text: str, allow: object, domains: object, deny: object) -> None:
    found = parsed(text)
    assert (found.mode, found.allow, found.domains, found.deny) == ("list", allow, domains, deny)
    assert policy.text(parsed(spelled(found))) == policy.text(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a part is empty"),
        ("10.0.0.1,,10.0.0.2", "a part is empty"),
        ("none,dns", "none stands alone"),
        ("all,10.0.0.1", "all stands alone"),
        ("10.0.0.300", "'10.0.0.300' is no address"),
        ("10.0.0", "'10.0.0' is no address"),
        ("10.0.0.5/8", "bits set beyond /8"),
        ("10.0.0.0/33", "/33 is no length"),
        ("fd00::/129", "/129 is no length"),
        ("fd00::g", "is no address"),
        ("10.0.0.1:0", "'0' is no port"),
        ("10.0.0.1:65536", "'65536' is no port"),
        ("10.0.0.1:-5", "'-5' is no port"),
        ("10.0.0.1:90-80", "begins with its lower end"),
        ("10.0.0.1:²", "is no port"),
        ("10.0.0.1:", "'' is no port"),
        ("10.0.0.1:80/icmp", "ICMP has no ports"),
        ("10.0.0.1/gre", "'gre' is no protocol"),
        ("10.0.0.0/8x:53", "/8x is no length"),
        ("[fd00::1:80", "bracket is not closed"),
        ("[fd00::1]80", "bracket is not closed"),
        ("a..b", "neither an address nor a domain name"),
        ("exa mple.org", "neither an address nor a domain name"),
        ("*", "neither an address nor a domain name"),
        ("a.*.b", "neither an address nor a domain name"),
        ("x" * 64 + ".org", "neither an address nor a domain name"),
        ("example.org/tcp", "needs a port"),
        ("example.org:1-100", "more than 32 ports"),
        ("deny:example.org", "only addresses can be denied"),
        (",".join(["10.0.0.1"] * 501), "501 parts"),
    ],
)
def test_what_is_no_policy(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("--egress")


def test_all_lifts_a_policy() -> None:
    assert parse("all") is None
    assert spelled(None) == "all"
    assert (spelled(parsed("none")), spelled(parsed("dns"))) == ("none", "dns")
    assert spelled(parsed("dns,10.0.0.1,deny:fd00::1")) == "dns,10.0.0.1,deny:fd00::1"


@pytest.mark.parametrize(
    ("text", "name", "answer"),
    [
        ("none", "example.org", False),
        ("dns", "example.org", True),
        ("10.0.0.0/8", "example.org", False),
        ("10.0.0.0/8,dns", "example.org", True),
        ("deny:10.0.0.0/8", "example.org", True),
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.org.", True),
        ("example.org", "www.example.org", False),
        ("example.org", "badexample.org", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("*.example.org", "badexample.org", False),
    ],
)
def test_which_names_resolve(text: str, name: str, answer: bool) -> None:
    assert policy.resolves(parsed(text), name) is answer


# ── the file ───────────────────────────────────────────────────────────────────────────────────────


def test_a_policy_comes_back_from_its_file(run_directory: Path) -> None:
    identifier = "a" * 64
    assert policy.load(identifier) is None
    found = parsed("dns,10.0.0.0/8:443/tcp,*.example.org:80,deny:169.254.169.254")
    found.addresses = ["10.77.0.2", "fd00::2"]
    policy.save(identifier, found)
    assert (run_directory / "networks/policies" / identifier).read_text() == (
        "mode list\ndns\ndeny 169.254.169.254/32\nallow 10.0.0.0/8 443 tcp\ndomain *.example.org 80 *\n"
        "address 10.77.0.2\naddress fd00::2\n"
    )
    again = policy.load(identifier)
    assert again is not None and policy.text(again) == policy.text(found)
    assert policy.all_policies() == [], "its container is not there"
    (run_directory / "containers" / identifier).mkdir(parents=True)
    assert [policy.text(each) for each in policy.all_policies()] == [policy.text(found)]
    policy.forget(identifier)
    policy.forget(identifier)
    assert policy.load(identifier) is None


@pytest.mark.parametrize(
    "text", ["", "deny 10.0.0.0/8\n", "mode list\nallow 10.0.0.0/8\n", "mode some\n", "mode\n"]
)
def test_a_file_nobody_here_wrote(text: str) -> None:
    with pytest.raises(ValueError, match="egress policy"):
        policy.parsed(text)


# ── ranges ─────────────────────────────────────────────────────────────────────────────────────────


def test_ranges_cover_the_same_and_do_not_overlap() -> None:
    """By chance: whatever the rules are, a point is in exactly one box if a rule covers it, else in none."""
    chance = random.Random(4)
    for _ in range(60):
        rules = [
            (
                f"10.0.0.{chance.randrange(0, 4) * 64}/{chance.choice([24, 26, 26, 32])}",
                chance.choice(["*", "80", "80-90", "85-100", "1-65535"]),
                chance.choice(["*", "tcp", "udp", "icmp"]),
            )
            for _ in range(chance.randrange(1, 6))
        ]
        rules = [("10.0.0.0/24" if cidr.endswith("/24") else cidr, *rest) for cidr, *rest in rules]  # type: ignore[misc]
        found = boxes.of_rules(rules, six=False)
        base = boxes.span("10.0.0.0/32")[0]
        points = itertools.product(
            [base + offset for offset in (0, 1, 63, 64, 128, 255)],
            [1, 6, 17, 47, 132],
            [0, 79, 80, 85, 90, 91, 100, 65535],
        )
        for point in points:
            inside = [
                box
                for box in found
                if all(low <= at <= high for at, (low, high) in zip(point, box, strict=True))
            ]
            wanted = any(
                all(
                    low <= at <= high
                    for at, (low, high) in zip(
                        point, (boxes.span(cidr), number, boxes.ports(port)), strict=True
                    )
                )
                for cidr, port, protocol in rules
                for number in boxes.protocols(port, protocol, six=False)
            )
            assert len(inside) == wanted, (rules, point, inside)


def test_only_its_own_family() -> None:
    rules = [("10.0.0.0/8", "*", "*"), ("fd00::/8", "*", "icmp")]
    assert boxes.of_rules(rules, six=False) == [((10 << 24, (11 << 24) - 1), (0, 255), (0, 65535))]
    assert boxes.of_rules(rules, six=True)[0][1] == (58, 58)
    assert boxes.spans(["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"], six=False) == [(10 << 24, (11 << 24) - 1)]


# ── elements ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def words() -> messages.Template:
    from pyrun.network.firewall import words as encoding

    found = messages.parsed(encoding.text())
    assert found is not None
    return found


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("name", ["police", "allow", "deny", "admit", "admit-at"])
def test_a_filled_template_is_what_pyroute2_encodes(words: messages.Template, name: str, six: bool) -> None:
    from pyrun.network.firewall import words as encoding

    size = encoding.key_bytes(name, six)
    values = {
        "key": bytes(range(1, size + 1)),
        "end": bytes(range(2, size + 2)),
        "time": bytes(6) + b"\x12\x34",
    }
    for kind, encoded in encoding.encode(name, six, values).items():
        given = {field: value for field, value in values.items() if f"<{field}>" in words[f"message {kind}"]}
        assert messages.filled(words, kind, **given).rstrip(b"\0") == encoded.rstrip(b"\0"), kind


def test_elements_of_both_families(words: messages.Template) -> None:
    found = parsed("10.0.0.0/8:443/tcp,[fd00::/8]:53,deny:10.9.0.0/16")
    found.addresses = ["10.77.0.2", "fd77::2"]
    assert len(elements.policed(words, found)) == 2
    assert len(elements.standing(words, found)) == 1 + 1 + 3  # one allowed, one denied; IPv6: tcp, udp, sctp
    assert len(elements.standing(words, parsed_with(found, "none"))) == 0
    assert len(elements.standing(words, parsed_with(found, "deny:10.0.0.1"))) == 1 + 1 + 1


def test_elements_are_of_the_address_whose_family_they_have(words: messages.Template) -> None:
    found = parsed("10.0.0.0/8:443/tcp,deny:fd00::/8")
    found.addresses = ["10.77.0.2", "fd77::2"]
    allowed, denied = elements.standing(words, found)
    mine, mine6 = socket.inet_pton(socket.AF_INET, "10.77.0.2"), socket.inet_pton(socket.AF_INET6, "fd77::2")
    assert mine + bytes([10, 0, 0, 0]) in allowed and mine + bytes([10, 255, 255, 255]) in allowed
    assert mine6 not in allowed
    assert mine6 + bytes([0xFD, *bytes(15)]) in denied and mine6 + bytes([0xFD, *[255] * 15]) in denied


def test_templates_of_another_version_are_made_anew(run_directory: Path) -> None:
    file = run_directory / "networks/policies/words"
    assert not elements.in_use()
    first = elements.words()
    assert elements.in_use() and first["words"] == elements.VERSION
    good = file.read_text()
    for text in (good.replace(elements.VERSION, "0"), good[:200], "\x00", "\xff"):
        file.write_text(text, "latin-1")
        assert elements.words() == first and file.read_text() == good
    before = file.stat()
    assert elements.words() == first
    assert file.stat().st_ino == before.st_ino, "one that is there is not written again"


def parsed_with(other: policy.Policy, text: str) -> policy.Policy:
    found = parsed(text)
    found.addresses = other.addresses
    return found


@pytest.mark.parametrize(
    ("address", "count"),
    [("203.0.113.80", 1), ("127.0.0.1", 0), ("169.254.169.254", 0), ("0.0.0.0", 0), ("224.0.0.1", 0), ("10.0.0.1", 1),
     ("2001:db8::1", 1), ("::1", 0), ("fe80::1", 0), ("ff02::1", 0), ("::ffff:169.254.169.254", 0),
     ("100.100.100.200", 0), ("100.100.100.201", 1), ("168.63.129.16", 0), ("192.0.0.192", 0), ("192.0.0.193", 1),
     ("fd00:ec2::254", 0), ("fd00:ec2::23", 0), ("fd00:ec3::254", 1), ("fd20:ce::254", 0), ("fd00:c1::a9fe:a9fe", 0),
     ("fd00:100::100:200", 0), ("fd00:42::42", 0), ("fd00:a9fe:a9fe::1", 0), ("fd20:ce::253", 1)],
)  # fmt: skip
def test_a_name_never_leads_into_the_host(
    monkeypatch: pytest.MonkeyPatch, words: messages.Template, address: str, count: int
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(elements, "words", lambda: words)
    monkeypatch.setattr(messages, "transact", lambda sock, template, changes: sent.extend(changes))
    found = parsed("example.org,*.example.org:443/tcp")
    found.addresses = ["10.77.0.2", "fd77::2"]
    elements.admit(None, "10.77.0.2", found, "example.org", [(address, 5)])  # type: ignore[arg-type]
    assert len(sent) == 3 * count  # added, deleted, added again
    elements.admit(None, "10.77.0.2", found, "elsewhere.org", [(address, 5)])  # type: ignore[arg-type]
    assert len(sent) == 3 * count


def test_an_answer_counts_as_long_as_it_says_and_at_least_a_minute(
    monkeypatch: pytest.MonkeyPatch, words: messages.Template
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(elements, "words", lambda: words)
    monkeypatch.setattr(messages, "transact", lambda sock, template, changes: sent.extend(changes))
    found = parsed("example.org")
    found.addresses = ["10.77.0.2"]
    for ttl_s, counted_s in ((0, 60), (59, 60), (300, 300), (1 << 31, 7 * 86_400)):
        sent.clear()
        elements.admit(None, "10.77.0.2", found, "example.org", [("192.0.2.1", ttl_s)])  # type: ignore[arg-type]
        assert (counted_s * 1000).to_bytes(8, "big") in sent[0]

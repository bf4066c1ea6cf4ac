"""What -p, -P and --expose say: every form, and one line for every wrong one."""

from __future__ import annotations

import itertools

import pytest

from pyrun.errors import UsageError
from pyrun.network.publishing import option, ports
from pyrun.network.publishing.ports import HostRange, Port

FORMS = [
    ("8080:80", [("", 8080, 80, "tcp")]),
    ("80", [("", 0, 80, "tcp")]),
    (":80", [("", 0, 80, "tcp")]),
    ("0:80", [("", 0, 80, "tcp")]),
    ("127.0.0.1:8080:80", [("127.0.0.1", 8080, 80, "tcp")]),
    ("127.0.0.1::80/udp", [("127.0.0.1", 0, 80, "udp")]),
    ("53:53/UDP", [("", 53, 53, "udp")]),
    ("8080:80/", [("", 8080, 80, "tcp")]),
    ("5000:5000/sctp", [("", 5000, 5000, "sctp")]),
    ("[::1]:8080:80", [("::1", 8080, 80, "tcp")]),
    ("[2001:db8:0::0001]::80", [("2001:db8::1", 0, 80, "tcp")]),
    ("2001:db8::1:8080:80", [("2001:db8::1", 8080, 80, "tcp")]),
    ("[::]:8080:80", [("::", 8080, 80, "tcp")]),
    ("8000-8002:9000-9002", [("", 8000, 9000, "tcp"), ("", 8001, 9001, "tcp"), ("", 8002, 9002, "tcp")]),
    ("9000-9001", [("", 0, 9000, "tcp"), ("", 0, 9001, "tcp")]),
    ("127.0.0.1:8000-8000:80", [("127.0.0.1", 8000, 80, "tcp")]),
    ("published=8080,target=80,protocol=udp", [("", 8080, 80, "udp")]),
    ("target=80", [("", 0, 80, "tcp")]),
    ("published=8080,target=80,host_ip=::1", [("::1", 8080, 80, "tcp")]),
    ("10.0.0.1:1:65535/tcp", [("10.0.0.1", 1, 65535, "tcp")]),
]


@pytest.mark.parametrize(("word", "expected"), FORMS)
def test_every_form(word: str, expected: list[Port]) -> None:
    assert option.parsed(word) == expected


@pytest.mark.parametrize(("word", "expected"), FORMS)
def test_what_is_told_of_a_port_means_that_port(word: str, expected: list[Port]) -> None:
    assert [port for told in expected for port in option.parsed(ports.spelled(told))] == expected


def test_all_combinations_of_the_parts() -> None:
    """Address x host's ports x container's ports x protocol: each is what its parts say."""
    addresses = {"": "", "127.0.0.1:": "127.0.0.1", "[::1]:": "::1"}
    hosts = {"": 0, "8080": 8080, "8080-8089": (8080, 8089)}
    for (text, host), (numbers, chosen), protocol in itertools.product(
        addresses.items(), hosts.items(), ("", "/tcp", "/udp", "/sctp")
    ):
        word = f"{text}{numbers}{':' if numbers or text else ''}80{protocol}"
        ((found_host, found, inside, found_protocol),) = option.parsed(word)
        assert (found_host, inside, found_protocol) == (host, 80, protocol[1:] or "tcp"), word
        if isinstance(chosen, tuple):
            assert isinstance(found, HostRange), word
            assert (int(found), found.last) == chosen
        else:
            assert found == chosen, word


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("", "'' is no port"),
        ("a:b", "'b' is no port"),
        ("80:0", "'0' is no port"),
        ("65536:80", "'65536' is no port"),
        ("8080:80/icmp", "unknown protocol 'icmp'"),
        ("300.0.0.1:1:1", "'300.0.0.1' is no IP address"),
        ("1.2.3:1:1", "'1.2.3' is no IP address"),
        ("localhost:80:80", "'localhost' is no IP address"),
        ("[127.0.0.1]:80:80", "brackets are for IPv6"),
        ("[::ffff:1.2.3.4]:80:80", "is an IPv4 address in the clothes of IPv6"),
        ("[::1]:80", "is to be followed by two ports"),
        ("[::1", "is to be followed by two ports"),
        ("8080:80:", "is no port"),
        (" 80:80", "' 80' is no port"),
        ("+8:80", "'+8' is no port"),
        ("٨٠:80", "is no port"),
        ("8080-80:80", "ends before it begins"),
        ("80-:80", "'' is no port"),
        ("0-10:80", "'0' is no port"),
        ("8000-8002:9000-9001", "3 ports of the host for 2 of the container"),
        ("8080:9000-9001", "1 ports of the host for 2 of the container"),
        ("published=80,target=80,colour=red", "'colour=red' is no setting"),
        ("published=80,published=81,target=80", "'published=81' is no setting"),
        ("target=80,mode=loud", "unknown mode 'loud'"),
        ("99999999999999999999:80", "is no port"),
    ],
)
def test_one_line_for_every_wrong_one(word: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        option.parsed(word)
    assert said in caught.value.message
    assert caught.value.message.startswith(f"-p {word}"[:60])
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("words", "both"),
    [
        (["8080:80", "8080:81"], ("8080:80", "8080:81")),
        (["8080:80", "8080:80"], ("8080:80", "8080:80")),
        (["8080:80", "127.0.0.1:8080:81"], ("8080:80", "127.0.0.1:8080:81")),
        (["127.0.0.1:8080:80", "0.0.0.0:8080:81"], ("127.0.0.1:8080:80", "0.0.0.0:8080:81")),
        (["[::1]:8080:80", "[::]:8080:81"], ("[::1]:8080:80", "[::]:8080:81")),
        (["8080:80", "[::]:8080:81"], ("8080:80", "[::]:8080:81")),
        (["8000-8005:80-85", "8003:90/tcp"], ("8003:83", "8003:90")),
        (["53:53/udp", "53:54/udp"], ("53:53/udp", "53:54/udp")),
    ],
)
def test_two_that_want_the_same_port(words: list[str], both: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="both want port") as caught:
        option.requested({"publish": words}, {})
    assert f"-p {both[0]} and -p {both[1]} " in caught.value.message


@pytest.mark.parametrize(
    "words",
    [
        ["8080:80", "8080:80/udp"],
        ["127.0.0.1:8080:80", "127.0.0.2:8080:80"],
        ["0.0.0.0:8080:80", "[::]:8080:80"],
        ["8000-8005:80", "8003:80"],
        ["80", "80"],
        ["8080:80", "8081:80"],
    ],
)
def test_those_that_do_not(words: list[str]) -> None:
    option.requested({"publish": words}, {})


IMAGE: dict[str, object] = {"config": {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000-8001": {}}}}


def test_publish_all_takes_what_the_image_and_expose_tell_of() -> None:
    options: dict[str, object] = {"publish_all": True, "expose": ["9000", "80/tcp"], "publish": ["8080:80"]}
    assert option.requested(options, IMAGE) == [
        ("", 8080, 80, "tcp"),
        ("", 0, 8000, "tcp"),
        ("", 0, 8001, "tcp"),
        ("", 0, 9000, "tcp"),
        ("", 0, 53, "udp"),
    ]


def test_without_publish_all_nothing_exposed_is_published() -> None:
    assert option.requested({"expose": ["9000"]}, IMAGE) == []


@pytest.mark.parametrize("word", ["0", "80:80", "a", "80/icmp", "90-80", ""])
def test_a_wrong_expose(word: str) -> None:
    with pytest.raises(UsageError, match=f"^--expose {word}"):
        option.requested({"expose": [word]}, {})


def test_what_an_image_exposes_wrongly_is_passed_over() -> None:
    image: dict[str, object] = {"config": {"ExposedPorts": {"x\n": {}, "80/tcp": {}, "70000": {}}}}
    assert option.requested({"publish_all": True}, image) == [("", 0, 80, "tcp")]


@pytest.mark.parametrize("config", [None, [], {"ExposedPorts": None}, {"ExposedPorts": ["80"]}, {}])
def test_an_image_that_exposes_nothing(config: object) -> None:
    assert option.requested({"publish_all": True}, {"config": config}) == []


def test_five_thousand_are_parsed_and_compared_in_a_moment() -> None:
    found = option.requested({"publish": ["20000-24999:20000-24999"]}, {})
    assert len(found) == 5000
    assert ports.lines(found) == ["port tcp  20000 20000 5000"]

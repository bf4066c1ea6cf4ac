"""What a start says to the guard while it makes its links: network/attach.py."""

from __future__ import annotations

import os
import socket

import pytest

from pyrun import notice
from pyrun.network import (
    attach,
    guard,
    messages,
    rebuilding,
)
from pyrun.network.publishing import reservation


@pytest.mark.parametrize(("said", "asked_again"), [(b"bridge\t5353", 0), (b"bridge\t-98", 1), (b"", 1)])
def test_a_resolver_that_was_asked_for_early(
    template: messages.Template, monkeypatch: pytest.MonkeyPatch, said: bytes, asked_again: int
) -> None:
    """While the links are made; a guard that ends meanwhile, or fails, is asked again, and tells why."""
    again: list[list[guard.Gateway]] = []
    noted: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        monkeypatch.setattr(guard, "connected", lambda: ours)
        monkeypatch.setattr(guard, "need", lambda asked: again.append(asked) or {"bridge": 53})
        monkeypatch.setattr(rebuilding, "note_resolver", lambda network, port: noted.append(port))
        link = attach.Attachment({"bridge": {**template, "dns_port": "53"}}, os.getpid(), None)
        try:
            attach.tell_guard(link, ["bridge"], [])
            assert theirs.recv(100).decode().split() == [
                "need",
                "bridge",
                template["gateway"],
                template["gateway6"],
            ]
            theirs.send(said) if said else theirs.close()
            attach.names(link, "bridge", "")
        finally:
            link.close()
    assert len(again) == asked_again
    assert noted == ([] if asked_again else [5353])
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    ("said", "told"), [(b"0", ""), (b"-2", ""), (b"-24", "cannot be reserved: Too many open")]
)
def test_published_ports_are_given_away_on_the_same_connection(
    template: messages.Template,
    monkeypatch: pytest.MonkeyPatch,
    said: bytes,
    told: str,
) -> None:
    """In front of the question, whose answer therefore is the second; what became of them is heard too."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[str] = []
    monkeypatch.setattr(notice, "_sinks", [heard.append])
    monkeypatch.setattr(guard, "connected", lambda: ours)
    link = attach.Attachment({"bridge": {**template, "dns_port": "53"}}, os.getpid(), None)
    bound = reservation.bound("127.0.0.1", 0, "tcp")
    try:
        attach.tell_guard(link, ["bridge"], [("tcp-127.0.0.1-80", bound, "")])
        text, fds, _, _ = socket.recv_fds(theirs, 100, 2)
        with socket.socket(fileno=fds[0]) as given_away:
            assert text == b"hold\ntcp-127.0.0.1-80\t" and given_away.getsockname()[0] == "127.0.0.1"
        assert theirs.recv(100).startswith(b"need\nbridge\t") and bound.fileno() == -1
        theirs.send(b"tcp-127.0.0.1-80\t" + said)
        theirs.send(b"bridge\t53")
        attach.names(link, "bridge", "")
    finally:
        link.close()
        theirs.close()
    assert told in "".join(heard) and bool(told) is bool(heard)
    assert ours.fileno() == -1

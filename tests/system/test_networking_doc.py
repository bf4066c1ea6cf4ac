"""docs/networking.md is what `make docs` writes: rules, elements, settings, and options that exist."""

from __future__ import annotations

import re

import pytest

import networking_doc
from command import Pyrun
from pyrun.network import netns

MOUNT = "restored: mount /run/netns\n"


@pytest.mark.alone
def test_the_page_is_what_a_run_writes(pyrun: Pyrun) -> None:
    """Another version of nft may word a rule in another way: then chains, elements and reasons are compared."""
    found = networking_doc.PAGE.read_text()
    if netns.directory_ready():  # since a test made a namespace by hand: then it is not ours to take away
        assert found.count(MOUNT) == 1
        found = found.replace(MOUNT, "")
    written = networking_doc.Writer(pyrun).write()
    if f"with {networking_doc.version()};" not in found:
        written, found = (_without_wording(text) for text in (written, found))
    assert written == found, "the rules have changed: `make docs`, and look at what it changes"


def _without_wording(text: str) -> str:
    text = re.sub(r"with nftables v[\d.]+", "with nftables", text)
    text = re.sub(r"^`(\w+)`: .*$", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"^\| `.*` \| ([^|]*) \|$", r"\1", text, flags=re.MULTILINE)


def test_what_is_compared_of_another_version() -> None:
    """Chains, reasons and elements stay, the words of rules go."""
    text = "with nftables v1.0.6;\n`guard`: type filter\n| `a | b` | why |\ninet set own: x\n"
    assert _without_wording(text) == "with nftables;\nguard\nwhy\ninet set own: x\n"

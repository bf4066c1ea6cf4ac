"""Which names on the host are this run directory's: those every pyrun has, or with a letter in them.

    tag   tables                       default bridge   host's ends of containers' links
    ""    inet pyrun, bridge pyrun     pyrun0           pyv...
    A     inet pyrun-A, bridge pyrun-A pyrunA           pyA...

The first run directory on a host has the plain names, further ones a letter each; ownership.py chooses it with the
first network and notes it in run/networks/tag. Hot: a start asks for the beginning of its link's name.
"""

from __future__ import annotations

from pyrun.store import paths

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OF_A_BRIDGE = ": network "
_TABLE = "pyrun"
_MOST_BYTES = 200  # of a comment the kernel keeps 256 bytes, of an alias 255


def path(run: str = "") -> str:
    """Where the tag is noted; run: of another run directory."""
    return f"{run or paths.run()}/networks/tag"


def tag(run: str = "") -> str:
    """The letter, or ""."""
    try:
        return paths.read(path(run)).decode("ascii", "replace")[:1]
    except OSError:
        return ""


def table() -> str:
    """What both tables of the firewall are called."""
    return table_of(tag())


def table_of(letter: str) -> str:
    """The same of any tag."""
    return f"{_TABLE}-{letter}" if letter else _TABLE


def is_table(name: str) -> bool:
    """Whether a table is some run directory's."""
    return name == _TABLE or (name[:-1] == f"{_TABLE}-" and name[-1] in LETTERS)


def default_bridge() -> str:
    """The bridge of the network that is there without being made."""
    return f"pyrun{tag() or 0}"


def link_prefix() -> str:
    """How the host's ends of containers' links begin."""
    return f"py{tag() or 'v'}"


def is_host_link(name: str) -> bool:
    """Whether a link is the host's end of a container's, in some run directory's bridge."""
    return name[:2] == "py" and (name[2:3] == "v" or name[2:3] in LETTERS) and len(name) > 3


def label() -> str:
    """What tells this run directory: its path, the end of one that is too long."""
    return paths.run().encode()[-_MOST_BYTES:].decode("utf-8", "ignore")


def alias(network: str) -> str:
    """The alias of the bridges of a network."""
    return f"{label()}{OF_A_BRIDGE}{network}"[:255]

"""Several run directories on one host: whose tables and bridges are whose, and which names are free.

Each table has a comment, and each bridge made here an alias, that tells the run directory. With its first network a run
directory takes the first tag (tags.py) that no other has; what is another's is neither changed nor removed, and its
subnets are avoided as everybody's are (subnets.py). The lock of the host (host.locked) keeps two from choosing at once.
Cold: networks are made and removed here.
"""

from __future__ import annotations

from _socket import socket
from pathlib import Path
from typing import Any

from pyrun.errors import NetworkError
from pyrun.network import events, health, messages, nft, records, tags
from pyrun.network.egress import elements
from pyrun.network.publishing.host_firewall import DUMP_TABLES
from pyrun.store import paths

# Of linux/netfilter/nf_tables.h, and of libnftnl's udata.h: a comment is type 0, a length, the text and a NUL.
_TABLE_NAME, _USERDATA, _COMMENT = 1, 6, 0


def claim(route: Any) -> None:
    """Before this run directory's first network: note which names it has. Call under `host.locked`.

    route: a pyroute2 IPRoute. Raises: NetworkError when every tag is another's.
    """
    if records.all_networks():
        return
    sock = messages.opened(messages.NETLINK_NETFILTER)
    owners = _owners(sock)
    sock.close()
    by_bridges = {tags.tag(run) for run in _runs_with_bridges(route)}
    for letter in ("", *tags.LETTERS):
        if owners.get(letter) in (None, "", tags.label()) and letter not in by_bridges:
            _note(letter)
            return
    raise NetworkError(
        f"{len(owners)} run directories have networks on this host, which is the most there can be",
        "`nft list tables` tells whose they are; `pyrun network prune` with PYRUN_RUNROOT removes one's",
    )


def _note(letter: str) -> None:
    path = Path(tags.path())
    elements.forget_words()  # they name the table that was ours before
    if letter:
        paths.replace(str(path), letter.encode())
        events.note([f"the names of this run directory have the letter {letter}: others have networks here"])
    else:
        path.unlink(missing_ok=True)


def check(sock: socket) -> None:
    """Raises: NetworkError when the table that this run directory had is another's, since somebody removed it."""
    owner = _owners(sock).get(tags.tag())
    if owner and owner != tags.label():
        raise NetworkError(
            f"table inet {tags.table()} is of the run directory {owner} now",
            "`pyrun network prune` there, or here when the containers have ended",
        )


def others() -> list[str]:
    """The other run directories that have tables on this host; none that an ordinary user would see."""
    sock = messages.opened(messages.NETLINK_NETFILTER)
    try:
        owners = _owners(sock)
    except PermissionError:
        return []
    finally:
        sock.close()
    return [owner for owner in owners.values() if owner not in ("", tags.label())]


def _owners(sock: socket) -> dict[str, str]:
    """Tag -> whose it is, "" for a table of an older version."""
    found = {}
    for _, payload in messages.split(messages.dump(sock, DUMP_TABLES)):
        told = health.attributes(payload, 4)
        name = told.get(_TABLE_NAME, b"").rstrip(b"\0").decode("ascii", "replace")
        if payload[:1] == bytes([nft.INET]) and tags.is_table(name):
            found[name[len(tags.table_of("")) + 1 :]] = _comment(told.get(_USERDATA, b""))
    return found


def _comment(data: bytes) -> str:
    if len(data) < 2 or data[0] != _COMMENT:
        return ""
    return data[2 : 2 + data[1]].rstrip(b"\0").decode("utf-8", "replace")


def _runs_with_bridges(route: Any) -> set[str]:
    """The other run directories of which a bridge is there, though their table may just have been flushed."""
    told = [str(link.get_attr("IFLA_IFALIAS") or "") for link in route.get_links()]
    return {each.partition(tags.OF_A_BRIDGE)[0] for each in told if tags.OF_A_BRIDGE in each} - {tags.label()}

"""Addresses of our networks which others have: who was on a bridge before it was adopted, the host itself on a card.

Each is claimed as a container's would be, so that it is never leased, in the name of a file that is there as long as
they are: a network namespace, or the card in /sys. `network rm` lets go of these claims; they hold no network in use.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pyrun.errors import Conflict
from pyrun.network import claims, leases
from pyrun.store import paths


def note(network: str, path: str, name: str, ifname: str, addresses: list[str]) -> None:
    """Claim *addresses* for whoever lives as long as the file *path*; those held by others are left to them."""
    owner = claims.owner_of_namespace(path)
    lines = [owner, *([f"name {name}"] if name else []), *([f"ifname {ifname}"] if ifname else [])]
    text = "".join(f"{line}\n" for line in lines).encode()
    for address in addresses:
        try:
            paths.write(leases.path(network, address), text, exclusive=True)
        except FileExistsError:
            pass


def close(network: str) -> None:
    """Take the directory of leases away, with the claims of strangers: after that no start can lease an address here.

    Raises: Conflict when a container is on the network; then everything is as before.
    """
    directory = f"{paths.run()}/networks/{network}/leases"
    claims.sweep(directory)
    held = {file: claims.lines(str(file)) for file in sorted(Path(directory).glob("*"))}
    _refuse(network, list(held.values()))
    for file in held:
        file.unlink(missing_ok=True)
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:  # a start took an address in this moment
        for file, lines in held.items():
            paths.write(str(file), "".join(f"{line}\n" for line in lines).encode())
        if error.errno != errno.ENOTEMPTY:
            raise
        _refuse(network, [claims.lines(str(file)) for file in Path(directory).glob("*")])


def _refuse(network: str, held: list[list[str]]) -> None:
    users = {claims.name_in(lines) for lines in held if lines and not _stranger(lines)}
    if users:
        raise Conflict(
            f"network {network} is used by {', '.join(sorted(users))}", "remove these containers first"
        )


def _stranger(lines: list[str]) -> bool:
    return lines[0].startswith("/")

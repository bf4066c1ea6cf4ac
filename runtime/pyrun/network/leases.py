"""Addresses: one file an address in run/networks/<name>/leases, handed out next-fit.

Next-fit and not first-fit: who gets an address that was freed a moment ago may find neighbours that still
know its former owner. A pointer file (`next`) remembers the last address; it is a hint, written without a
lock, because the lease files alone decide (see claims.py). The MAC is derived from the address, so that a
neighbour entry of a former owner is right for the next one as well.

IPv6 addresses are leased by the same files. A container with both gets the IPv6 address that has its IPv4
address in the last four bytes, if nobody took that by hand: one search is enough for both.
"""

from __future__ import annotations

import posix
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from pyrun.errors import Conflict, NetworkError
from pyrun.network import claims
from pyrun.store import paths

# So many taken addresses in a row are stepped over one by one before all leases are listed.
_PATIENCE = 32
# A subnet of more addresses is not searched through but asked at random places.
_SEARCHED = 1 << 20


def mac(address: str) -> str:
    """The MAC that belongs to an address: locally administered, 02:42 and its last four bytes."""
    return ":".join([f"{byte:02x}" for byte in b"\x02\x42" + _packed(address)[-4:]])


def mac_path(network: str, mac: str) -> str:
    """The claim of a MAC that somebody chose on a network (mac_claims.py)."""
    return f"{paths.run()}/macs/network {network}-{mac}"  # no interface is called so


def beside(address: str, gateway6: str, prefix6: int, within6: str = "") -> str:
    """The IPv6 address that goes with an IPv4 one: the subnet's, or the range's, with its four bytes at the end."""
    if within6:
        gateway6, _, length = within6.partition("/")
        prefix6 = int(length)
    host = _number(address) & ((1 << (128 - prefix6)) - 1)
    return _text(_first(gateway6, prefix6) | host, AF_INET6)


def take(network: str, gateway: str, prefix: int, within: str, record: str) -> str:
    """Lease the next free address for the owner of *record*; within: only from this part of the subnet (--ip-range).

    Raises: NetworkError when every address is held by a living container; FileNotFoundError when the network
    was removed meanwhile (whoever removes it takes the empty directory of leases away first).
    """
    directory = _directory(network)
    after, before = _spans(network, gateway, prefix, within)
    address = _first_claimed(network, [*after[:_PATIENCE], *before[:_PATIENCE]], gateway, record)
    if not address:
        address = _first_claimed(network, _unused(directory, after, before, gateway), gateway, record)
    if not address:
        claims.sweep(directory)  # or somebody else did, in this moment
        address = _first_claimed(network, _unused(directory, after, before, gateway), gateway, record)
    if not address:
        subnet = f"{_text(_first(gateway, prefix), _family(gateway))}/{prefix}"
        raise NetworkError(
            f"network {network!r} has no free address left: all of {within or subnet} are leased",
            f"remove containers; {directory} shows who holds which address",
        )
    paths.write(_pointer(network, gateway), address.encode())
    return address


def take_this(network: str, address: str, record: str) -> str:
    """Lease *address* itself. Raises: Conflict naming the holder; FileNotFoundError as `take`."""
    file = path(network, address)
    if not (claims.take(record, file) or (claims.reclaim(file) and claims.take(record, file))):
        raise Conflict(
            f"the address {address} of network {network} is held by {claims.whose(file)}",
            "choose another, or leave the choice to pyrun",
        )
    return address


def take_beside(address: str, network: str, gateway6: str, prefix6: int, within6: str, record: str) -> str:
    """Lease the IPv6 address that goes with *address*; "" where somebody has it, or nobody can."""
    wanted = beside(address, gateway6, prefix6, within6)
    nobody = (gateway6, _text(_first(gateway6, prefix6), AF_INET6))
    return wanted if wanted not in nobody and claims.take(record, path(network, wanted)) else ""


def peek(network: str, gateway: str, prefix: int, within: str = "") -> str:
    """The address `take` would lease now, "" if there is none; touches nothing."""
    after, before = _spans(network, gateway, prefix, within)
    used = set(claims.names(_directory(network)))
    for number in [
        *after[:_PATIENCE],
        *before[:_PATIENCE],
        *_unused(_directory(network), after, before, gateway),
    ]:
        if number != _number(gateway) and _text(number, _family(gateway)) not in used:
            return _text(number, _family(gateway))
    return ""


def held(network: str) -> dict[str, list[str]]:
    """Every lease of a living container: address -> the lines of its claim."""
    return {name: lines for name, lines in _living(network).items() if "." in name or ":" in name}


def members(network: str) -> dict[str, list[str]]:
    """Who is on the network without an address (drivers/none_driver.py): id -> the lines of its claim."""
    return {name: lines for name, lines in _living(network).items() if "." not in name and ":" not in name}


def _living(network: str) -> dict[str, list[str]]:
    directory = _directory(network)
    found = {name: claims.lines(f"{directory}/{name}") for name in claims.names(directory)}
    return {name: lines for name, lines in found.items() if lines and claims.alive(lines[0])}


def path(network: str, address: str) -> str:
    """The lease file of *address*."""
    return f"{_directory(network)}/{address}"


def _directory(network: str) -> str:
    return f"{paths.run()}/networks/{network}/leases"


def _pointer(network: str, gateway: str) -> str:
    return f"{paths.run()}/networks/{network}/{'next6' if ':' in gateway else 'next'}"


def _spans(network: str, gateway: str, prefix: int, within: str) -> tuple[range, range]:
    """The addresses of the subnet after the one handed out last, and those up to it; its two ends left out."""
    bits = 128 if ":" in gateway else 32
    if within:
        base, _, length = within.partition("/")
        first, size = _number(base), 1 << (bits - int(length))
        # the ends of a part are ends of the subnet only where it reaches them
        low = first + (first == _first(gateway, prefix))
        high = first + size - (first + size == _first(gateway, prefix) + (1 << (bits - prefix)))
    else:
        first, size = _first(gateway, prefix), 1 << (bits - prefix)
        low, high = first + 1, first + size - 1
    try:
        last = _number(paths.read(_pointer(network, gateway)).decode())
    except (OSError, ValueError):
        last = _number(gateway)
    if not low <= last < high:
        last = low - 1
    return range(last + 1, high), range(low, last + 1)


def _first(gateway: str, prefix: int) -> int:
    return _number(gateway) & ~((1 << ((128 if ":" in gateway else 32) - prefix)) - 1)


def _unused(directory: str, after: range, before: range, gateway: str) -> list[int]:
    if after.stop - before.start > _SEARCHED:
        span = after.stop - before.start
        return [before.start + int.from_bytes(posix.urandom(16), "big") % span for _ in range(_PATIENCE)]
    used, family = set(claims.names(directory)), _family(gateway)
    return [number for number in [*after, *before] if _text(number, family) not in used]


def _first_claimed(network: str, numbers: list[int], gateway: str, record: str) -> str:
    gateway_number, family = _number(gateway), _family(gateway)
    for number in numbers:
        if number == gateway_number:
            continue
        address = _text(number, family)
        if claims.take(record, path(network, address)):
            # Claimed before it is looked for, while whoever chooses a MAC claims that before he looks for leases.
            if not paths.exists(mac_path(network, mac(address))) or _may_have(network, address):
                return address
            posix.unlink(path(network, address))
    return ""


def _may_have(network: str, address: str) -> bool:
    """Whether the MAC of the address is nobody's after all, whose claim was left behind."""
    return claims.reclaim(mac_path(network, mac(address)))


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET


def _packed(address: str) -> bytes:
    return inet_pton(_family(address), address)


def _number(address: str) -> int:
    try:
        return int.from_bytes(_packed(address), "big")
    except OSError:  # what a file says that somebody else wrote
        raise ValueError(address) from None


def _text(number: int, family: int) -> str:
    return inet_ntop(family, number.to_bytes(4 if family == AF_INET else 16, "big"))

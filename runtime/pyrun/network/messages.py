"""The netlink messages of a start, without a netlink library: templates, filled in and sent.

pyroute2 encoded every message once, when the network was made; where each start has a value of its own, templates.py
left its name. What is left for a start is to put its values there and send. The file run/networks/<name>/template can
be read by a person; a tab follows the name of each value:

    pyrun-template 7
    bridge              pyrun0
    index               5
    ...
    message address     40000000140005...02<prefix>0000<index>08000200<address>08000100<address>...

What is here: the file, the filling, sending and reading the kernel's answers. Which messages there are and in
which order they go is in attach.py. Source: man 7 netlink, man 7 rtnetlink.
"""

from __future__ import annotations

import errno
import posix
from _socket import AF_NETLINK, MSG_DONTWAIT, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
from _struct import pack, unpack_from
from fcntl import ioctl

from pyrun.errors import NetworkError
from pyrun.network import tags
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = "pyrun-template 7"
# A container's name is kept as alias of its link, cut to this length.
ALIAS_BYTES = 64
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
_SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8913, 0x8933
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_ACK = 4
# The sequence number of the last of several messages, by which its answer is known.
_LAST = (1).to_bytes(4, "little")
_IFREQ_BYTES = 40
# The kernel answers within microseconds; a socket that stays silent this long has lost its answer.
_PATIENCE_S = 10
# What a socket takes in any case; the options (asm-generic/socket.h) let root have more.
_SMALL_BYTES = 65536
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

# {"bridge": "pyrun0", ..., "message link": "94000000...<name>00..."}
Template = dict[str, str]


def path(network: str) -> str:
    """The template file of a network."""
    return f"{paths.run()}/networks/{network}/template"


def load(network: str) -> Template | None:
    """The template of a network; None when there is none, or one of another version of pyrun."""
    try:
        return parsed(paths.read(path(network)).decode("ascii"))
    except (OSError, ValueError):
        return None


def parsed(text: str) -> Template | None:
    """A template from its text; None for one of another version, or one cut short."""
    if not text.startswith(f"{FORMAT}\n") or not text.endswith("\nend\n"):
        return None
    fields = text[len(FORMAT) + 1 : -len("\nend\n")].replace("\t", "\n").split("\n")
    return dict(zip(fields[::2], fields[1::2], strict=True))


def line(name: str, message: bytes, marks: Iterable[tuple[str, bytes]]) -> str:
    """The line of a template file for the message *name*. marks: (name of a value, the bytes that stand for it)."""
    places = []
    for field, mark in marks:
        at = message.find(mark)
        while at >= 0:
            places.append((at, at + len(mark), field))
            at = message.find(mark, at + 1)
    text, done = "", 0
    for begin, end, field in sorted(places):
        text += f"{message[done:begin].hex()}<{field}>"
        done = end
    return f"message {name}\t{text}{message[done:].hex()}"


def filled(template: Template, name: str, /, **values: bytes) -> bytes:
    """The message *name* with *values* in their places, each exactly as long as what the template was made with.

    Raises ValueError when one is missing.
    """
    text = template["message " + name]
    for field, value in values.items():
        text = text.replace(f"<{field}>", value.hex())
    return bytes.fromhex(text)


_FURTHER = "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_LINKS = 1 + len(_FURTHER)


def host_link(identifier: str, number: int = 0) -> str:
    """The name of the host's end of a container's link *number*: 15 characters, the most there can be, always.

    12 digits of our own ids, further links 11 and a letter that is no digit; a bundle's container may be called
    anything, and gives those of its SHA-256.
    """
    if len(identifier) != 64 or identifier.strip("0123456789abcdef"):
        from pyrun.digest import sha256_hex

        identifier = sha256_hex(identifier.encode())
    if number:
        return f"{tags.link_prefix()}{identifier[:11]}{_FURTHER[number - 1]}"
    return tags.link_prefix() + identifier[:12]


def u32(number: int) -> bytes:
    """A number as rtnetlink has it: 32 bits in the machine's byte order."""
    return pack("=I", number)


def opened(family: int) -> socket:
    """A netlink socket of *family* in the current network namespace. Source: man 7 netlink.

    Raises: NetworkError on a kernel without nftables.
    """
    try:
        sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family)
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT) or family != NETLINK_NETFILTER:
            raise
        raise NetworkError(
            "this kernel has no nftables (nf_tables), which every bridged network needs",
            "modprobe nf_tables; or --network=none, --network=host",
        ) from None
    sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, pack("=qq", _PATIENCE_S, 0))
    return sock


def index_of(sock: socket, name: str) -> int:
    """The number of an interface in the network namespace of *sock*. Raises OSError. Source: man 7 netdevice."""
    request = name.encode().ljust(_IFREQ_BYTES, b"\0")
    return int.from_bytes(ioctl(sock.fileno(), _SIOCGIFINDEX, request)[16:20], "little")


def is_up(sock: socket, name: str) -> bool:
    """Whether an interface is set up, as `ip link set NAME up` does. Raises OSError."""
    request = name.encode().ljust(_IFREQ_BYTES, b"\0")
    return bool(ioctl(sock.fileno(), _SIOCGIFFLAGS, request)[16] & 1)


def send(sock: socket, messages: list[bytes]) -> None:
    """Send messages in one system call and wait until the kernel has answered the last one.

    The others are only answered when they are refused. Raises OSError with the first error.
    """
    *others, last = messages
    sock.send(b"".join([*map(_quiet, others), last[:8] + _LAST + last[12:]]))
    problem = 0
    while True:
        data = sock.recv(65536)
        for kind, payload in split(data):
            if kind == _NLMSG_ERROR:
                problem = problem or -int(unpack_from("=i", payload)[0])
        if data[8:12] == _LAST:
            break
    if problem:
        raise OSError(problem, posix.strerror(problem))


def _quiet(message: bytes) -> bytes:
    """The same without the wish for an acknowledgement."""
    return message[:6] + bytes([message[6] & ~_NLM_F_ACK]) + message[7:]


def answers(sock: socket, messages: list[bytes], expected: int) -> list[int]:
    """Send *messages* and return the errno (0: none) of each of *expected* acknowledgements."""
    sock.send(b"".join(messages))
    errors: list[int] = []
    while len(errors) < expected:
        for kind, payload in split(sock.recv(65536)):
            if kind == _NLMSG_ERROR:
                errors.append(-int(unpack_from("=i", payload)[0]))
    return errors


def transaction(template: Template, changes: list[bytes]) -> bytes:
    """nftables *changes* as one transaction: all together or not at all.

    Only the last one is acknowledged, since thousands of answers would not fit a socket's buffer.
    """
    return b"".join(
        [filled(template, "begin"), *map(_quiet, changes[:-1]), *changes[-1:], filled(template, "end")]
    )


def transact(sock: socket, template: Template, changes: list[bytes]) -> None:
    """Commit nftables *changes*. Raises OSError with the first error."""
    data = transaction(template, changes)
    if len(data) > _SMALL_BYTES:  # it has to go in one piece, and every change may be refused by a message
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            sock.setsockopt(SOL_SOCKET, option, 4 * len(data))
    sock.send(data)
    acknowledged = not changes
    try:
        while not acknowledged:
            for kind, payload in split(sock.recv(65536)):
                if kind == _NLMSG_ERROR:
                    number = -int(unpack_from("=i", payload)[0])
                    if number:
                        raise OSError(number, posix.strerror(number))
                    acknowledged = True
    except OSError:
        _drain(sock)
        raise


def _drain(sock: socket) -> None:
    """Every message of a failed transaction is answered: whoever goes on with the socket must not take that for his."""
    while True:
        try:
            sock.recv(65536, MSG_DONTWAIT)
        except OSError as error:
            # ENOBUFS tells, once, that some were too many; anything else that there is nothing left
            if error.errno != errno.ENOBUFS:
                return


def ask(sock: socket, message: bytes) -> tuple[int, bytes]:
    """Send one request without acknowledgement: (errno, 0 if there is an answer; the answer's payload)."""
    sock.send(message)
    kind, payload = split(sock.recv(65536))[0]
    if kind == _NLMSG_ERROR:
        return -int(unpack_from("=i", payload)[0]), b""
    return 0, payload


def dump(sock: socket, message: bytes) -> bytes:
    """Send a dump request; everything it returns, headers included. Raises OSError."""
    sock.send(message)
    collected = b""
    while True:
        data = sock.recv(1 << 20)
        for kind, payload in split(data):
            if kind == _NLMSG_DONE:  # alone, or after the last answers
                return collected + data[: -16 - len(payload)]
            if kind == _NLMSG_ERROR:
                number = -int(unpack_from("=i", payload)[0])
                raise OSError(number, posix.strerror(number))
        collected += data


def split(data: bytes) -> list[tuple[int, bytes]]:
    """The messages of one datagram: (type, payload after the 16 bytes of header)."""
    found = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind = unpack_from("=IH", data, offset)
        found.append((kind, data[offset + 16 : offset + length]))
        offset += max(length + 3 & ~3, 16)
    return found

"""What -p, -P and --expose say, as ports: every form Docker takes.

    -p 8080:80                    on every address of the host     -p 8000-8010:80         the first free one of these
    -p 127.0.0.1:8080:80/udp      on this one                      -p 8000-8010:9000-9010  each to its own
    -p [2001:db8::1]:8080:80      IPv6                             -p 80, 127.0.0.1::80    a free port of the host
    -p published=8080,target=80,protocol=udp                       the long form
    -P                            what the image and --expose tell of, each on a free port

Pure. Where one port is meant and a range of the host's is given, it is a ports.HostRange; 0 is a free port, "" every
address. What of this can be had is found out by ports.settle.
Source: docs.docker.com/engine/network/port-publishing, go-connections nat.ParsePortSpec.
"""

from __future__ import annotations

from pyrun import notice
from pyrun.errors import UsageError
from pyrun.network.publishing import ports
from pyrun.network.publishing.ports import HostRange, Port
from pyrun.safe import is_number
from pyrun.spec.values import texts

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options
    from pyrun.store.image_json import Image


_FORMS = "[IP:][HOST-PORT[-LAST]:]PORT[-LAST][/tcp|/udp|/sctp], for example 8080:80"
_LONG = ("published", "target", "protocol", "host_ip", "mode")


def requested(options: Options, image: Image) -> list[Port]:
    """Everything the options ask to publish, in the order given. Raises UsageError."""
    published = [port for word in texts(options.get("publish")) for port in parsed(word)]
    exposed = [each for word in texts(options.get("expose")) for each in _exposed(word, f"--expose {word}")]
    if options.get("publish_all"):
        known = {(inside, protocol) for _, _, inside, protocol in published}
        every = dict.fromkeys([*_of_image(image), *exposed])
        published += [
            ("", 0, *each) for each in sorted(every, key=lambda each: each[::-1]) if each not in known
        ]
    ports.check(published)
    return published


def parsed(word: str) -> list[Port]:
    """The ports one word after -p means. Raises UsageError."""
    told = f"-p {word:.80}"
    text = _short(word) if "=" in word else word
    text, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ports.PROTOCOLS:
        raise UsageError(f"{told}: unknown protocol {protocol!r}", "tcp, udp or sctp")
    place, host, inside = _split(text, told)
    first, last = _range(inside, told, least=1)
    place = _address(place, told)
    if not host:
        return [(place, 0, number, protocol) for number in range(first, last + 1)]
    low, high = _range(host, told, least=0)
    if first == last:
        return [(place, low if low == high else HostRange(low, high), first, protocol)]
    if high - low != last - first:
        raise UsageError(
            f"{told}: {high - low + 1} ports of the host for {last - first + 1} of the container",
            "as many on both sides, or one port of the container and a range of the host's",
        )
    return [(place, low + step, first + step, protocol) for step in range(last - first + 1)]


def _split(text: str, told: str) -> tuple[str, str, str]:
    """Address with its brackets, the host's ports, the container's ports."""
    if not text.startswith("["):
        place, _, rest = text.rpartition(":")
        place, _, host = place.rpartition(":")
        return place, host, rest
    place, _, rest = text.partition("]")
    if rest.count(":") != 2 or rest[0] != ":":
        raise UsageError(
            f"{told}: {place}] is to be followed by two ports", f"{place}]:8080:80, or {place}]::80"
        )
    _, host, inside = rest.split(":")
    return f"{place}]", host, inside


def _short(word: str) -> str:
    """The long form as the short one."""
    told: dict[str, str] = {}
    for pair in word.split(","):
        key, equals, value = pair.partition("=")
        if not equals or key not in _LONG or key in told:
            raise UsageError(f"-p {word}: {pair!r} is no setting", "published=, target=, protocol=, host_ip=")
        told[key] = value
    if told.get("mode", "ingress") not in ("host", "ingress"):
        raise UsageError(
            f"-p {word}: unknown mode {told['mode']!r}", "host or ingress; here they are the same"
        )
    host = told.get("host_ip", "").strip("[]")
    host = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
    return f"{host}{told.get('published', '')}:{told.get('target', '')}/{told.get('protocol') or 'tcp'}"


def _range(text: str, told: str, least: int) -> tuple[int, int]:
    """`80` or `80-90`; least: 0 where a free port may be meant."""
    first, dash, last = text.partition("-")
    numbers = [first, last if dash else first]
    for number in numbers:
        if not is_number(number) or len(number) > 5 or not least <= int(number) <= 65535:
            rule = "ports are numbers from 1 to 65535"
            raise UsageError(f"{told}: {number!r} is no port", f"{rule}; the form is {_FORMS}")
    low, high = map(int, numbers)
    if high < low:
        raise UsageError(f"{told}: the range {text} ends before it begins", f"{high}-{low}")
    if dash and low == 0:
        raise UsageError(
            f"{told}: '0' is no port", "ports are numbers from 1 to 65535; a lone 0 is a free one"
        )
    return low, high


def _address(text: str, told: str) -> str:
    """An address of the host in its one spelling, "" for none. Raises UsageError."""
    inner = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    if not text:
        return ""
    try:
        address = ports.normal(inner)
    except (OSError, ValueError):
        remedy = "127.0.0.1" if inner == "localhost" else "an address of this host, IPv6 in brackets; or none"
        raise UsageError(f"{told}: {inner!r} is no IP address", remedy) from None
    if text is not inner and ":" not in address:
        raise UsageError(f"{told}: brackets are for IPv6", f"{address}:...")
    if address.startswith("::ffff:") and "." in address:
        raise UsageError(f"{told}: {inner} is an IPv4 address in the clothes of IPv6", address[7:])
    return address


def _exposed(word: str, told: str) -> list[tuple[int, str]]:
    """`80`, `80-90/udp`: ports of the container."""
    text, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ports.PROTOCOLS:
        raise UsageError(f"{told}: unknown protocol {protocol!r}", "tcp, udp or sctp")
    if ":" in text:
        raise UsageError(f"{told}: a port of the container alone is exposed", f"-p {word} publishes one")
    first, last = _range(text, told, least=1)
    return [(number, protocol) for number in range(first, last + 1)]


def exposed(options: Options, image: Image) -> list[tuple[int, str]]:
    """(port, protocol) of what the image and --expose tell of, for `ps`. Raises UsageError."""
    config = image.get("config")
    if not options.get("expose") and not (isinstance(config, dict) and config.get("ExposedPorts")):
        return []
    asked = [each for word in texts(options.get("expose")) for each in _exposed(word, f"--expose {word}")]
    return sorted({*_of_image(image, quiet=True), *asked})


def _of_image(image: Image, *, quiet: bool = False) -> list[tuple[int, str]]:
    """What the image exposes; what is no port in it is told and passed over, since no user could mend it."""
    config = image.get("config")
    listed = config.get("ExposedPorts") if isinstance(config, dict) else None
    found = []
    for word in listed if isinstance(listed, dict) else {}:
        try:
            found += _exposed(str(word), "-P")
        except UsageError:
            if not quiet:
                notice.say(f"-P: the image exposes {str(word)!r:.60}, which is no port: passed over")
    return found

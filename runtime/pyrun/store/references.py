"""Image references: what `ubuntu`, `ghcr.io/a/b:1.2` and `name@sha256:...` mean, read as Docker reads them.

    [domain/]path[:tag][@digest]      ubuntu         -> docker.io / library/ubuntu : latest
                                      me/app:2       -> docker.io / me/app         : 2
                                      localhost/app  -> localhost / app            : latest

The first part is a registry if it holds a dot or a colon, an upper-case letter, or is `localhost`. Every part
is checked by a strict pattern, character by character (`re` costs more to import than the whole lookup), so
that a reference is safe in a URL, and quoted as a file name. Nothing here looks at a disk or a network.
Source: the grammar in the distribution specification, "Pulling manifests".
"""

from __future__ import annotations

from pyrun.errors import UsageError

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TAG = _ALNUM | frozenset("_.-")
_HEX = frozenset("0123456789abcdef")
_SEPARATORS = ("", ".", "_", "__")  # between the words of a path component; and any number of dashes

NAME_MAX = 255  # characters of domain and path, as in the distribution specification
FILE_NAME_MAX = 240  # bytes of the quoted reference: a file system allows 255, and a suffix may follow


class Reference:
    """A parsed reference. domain, path: never empty; tag: "" only with a digest; digest: "sha256:..." or ""."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str, digest: str) -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def full(self) -> str:
        """The one spelling the store uses: `docker.io/library/ubuntu:latest`; a digest leaves the tag out."""
        return (
            f"{self.domain}/{self.path}@{self.digest}"
            if self.digest
            else f"{self.domain}/{self.path}:{self.tag}"
        )

    @property
    def familiar(self) -> str:
        """The shortest spelling that means the same: `ubuntu:latest`."""
        return familiar(self.full)


def parse(text: str) -> Reference:
    """Read a reference; a missing domain is docker.io, a missing tag `latest`. Raises UsageError."""
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"the digest {digest!r} is not sha256: and 64 lower-case hex digits")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # a colon before a slash belongs to a port
        head, tag = name, ""
    elif not is_tag(tag):
        raise _invalid(text, f"the tag {tag!r} is not 1 to 128 of letters, digits, _ . and -")
    domain, path = _split_domain(head)
    if not _is_domain(domain):
        raise _invalid(text, f"the registry {domain!r} is not a host name with an optional port")
    _check_path(text, path)
    if len(domain) + len(path) + 1 > NAME_MAX:
        raise _invalid(text, f"it is longer than {NAME_MAX} characters")
    reference = Reference(domain, path, "" if digest else tag or "latest", digest)
    if len(quote(reference.full)) > FILE_NAME_MAX:
        raise _invalid(text, "name and tag together are too long for a file name")
    return reference


def _invalid(text: str, why: str) -> UsageError:
    return UsageError(
        f"invalid image reference {text!r}: {why}", "a reference looks like [registry/]name[:tag]"
    )


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or (
        "." not in first and ":" not in first and first != "localhost" and first == first.lower()
    ):
        first, rest = "docker.io", name
    if first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _is_domain(domain: str) -> bool:
    if domain[:1] == "[":  # an IPv6 address
        address, bracket, port = domain[1:].partition("]")
        if not bracket or not address or set(address) - set("0123456789abcdefABCDEF:"):
            return False
        return not port or (port[0] == ":" and _is_port(port[1:]))
    host, colon, port = domain.partition(":")
    if colon and not _is_port(port):
        return False
    for label in host.split("."):
        if not label or label[0] == "-" or label[-1] == "-" or set(label) - _ALNUM - {"-"}:
            return False
    return True


def _is_port(text: str) -> bool:
    return 0 < len(text) <= 5 and not set(text) - set("0123456789") and int(text) < 65536


def _check_path(text: str, path: str) -> None:
    for component in path.split("/"):
        if component != component.lower():
            raise _invalid(text, "the name must be lower case")
        if not component or component[0] not in _LOWER or component[-1] not in _LOWER:
            raise _invalid(text, f"the part {component!r} must begin and end with a letter or digit")
        separator = ""
        for character in component:
            if character in _LOWER:
                if separator not in _SEPARATORS and separator.strip("-"):
                    raise _invalid(text, f"{separator!r} may not separate the words of a name")
                separator = ""
            elif character in "._-":
                separator += character
            else:
                raise _invalid(text, f"the character {character!r} is not allowed")


def is_tag(text: str) -> bool:
    """Whether *text* is a valid tag."""
    return 0 < len(text) <= 128 and text[0] not in ".-" and not set(text) - _TAG


def is_digest(text: str) -> bool:
    """Whether *text* is `sha256:` and 64 lower-case hex digits: the only form ever used in a path or URL."""
    return text[:7] == "sha256:" and len(text) == 71 and not set(text[7:]) - _HEX


def is_hex(text: str) -> bool:
    """Whether *text* consists of lower-case hex digits alone (an id or the beginning of one)."""
    return bool(text) and not set(text) - _HEX


def familiar(full: str) -> str:
    """The shortest spelling of a full reference, for people: `docker.io/library/a:1` is `a:1`."""
    if full.startswith("docker.io/library/"):
        return full[18:]
    return full.removeprefix("docker.io/")


def quote(full: str) -> str:
    """A reference as one file name: every byte but A-Z a-z 0-9 . _ - as %XX."""
    return "".join([c if c in _TAG else "".join([f"%{byte:02X}" for byte in c.encode()]) for c in full])


def unquote(name: str) -> str:
    """The reference a file name of `quote` stands for."""
    head, *rest = name.split("%")
    try:
        return head + "".join([chr(int(part[:2], 16)) + part[2:] for part in rest])
    except ValueError:
        return name

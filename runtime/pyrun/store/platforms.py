"""Platforms as images name them: `linux/arm64/v8`. Which one this machine is, and which ones it can run.

Source: image-spec image-index.md#platform-variants (the names are those of the Go tool chain).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from pyrun.errors import UsageError
from pyrun.safe import is_number

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import Image

_MACHINES = {"x86_64": "amd64", "i386": "386", "i486": "386", "i586": "386", "i686": "386", "aarch64": "arm64",
             "armv8l": "arm", "armv7l": "arm", "armv6l": "arm", "ppc64le": "ppc64le", "s390x": "s390x",
             "riscv64": "riscv64", "loongarch64": "loong64", "mips64": "mips64le"}  # fmt: skip
_VARIANTS = {"aarch64": "v8", "armv8l": "v7", "armv7l": "v7", "armv6l": "v6"}
_SPELLINGS = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
    "i386": "386",
}
# GOARCH of the images there are. Source: image-spec image-index.md, go.dev/doc/install/source.
_ARCHITECTURES = (
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x",
)  # fmt: skip
_FALLBACK = 16


class Platform(NamedTuple):
    """variant may be empty."""

    os: str
    architecture: str
    variant: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


def host() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    return Platform("linux", _MACHINES.get(machine, machine), _VARIANTS.get(machine, ""))


def parse(text: str | None) -> Platform:
    """Read `linux/arm/v7`, `arm64`, or nothing and `linux` (this machine's): the value of --platform. Raises UsageError
    for what no image of Linux is for, before anybody asks a registry."""
    if not text or text.lower() == "linux":
        return host()
    hint = "for example linux/amd64, linux/arm64 or linux/arm/v7"
    parts = text.lower().split("/")
    if len(parts) == 1:
        parts = ["linux", *parts]
    if len(parts) == 2:
        parts = [parts[0], *_SPELLINGS.get(parts[1], parts[1]).split("/")]
    if len(parts) > 3 or not all(part.replace("_", "").isalnum() for part in parts):
        raise UsageError(f"invalid --platform: {text!r:.80}", hint)
    wanted = normal(*parts)
    if wanted.os != "linux" or wanted.architecture not in _ARCHITECTURES:
        raise UsageError(f"--platform {text!r:.80}: no platform of Linux images", hint)
    return wanted


def normal(os_name: str, architecture: str, variant: str = "") -> Platform:
    """The platform with its variant in one spelling: arm64 is arm64/v8, arm is arm/v7, amd64 has none."""
    architecture, _, implied = _SPELLINGS.get(architecture, architecture).partition("/")
    variant = variant or implied or {"arm64": "v8", "arm": "v7"}.get(architecture, "")
    if architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(os_name, architecture, variant)


def of_image(image: Image) -> Platform:
    """The platform image.json names, which may leave anything out."""
    return normal(*[str(image.get(key) or "") for key in ("os", "architecture", "variant")])


def rank(offered: Platform, wanted: Platform) -> int:
    """How well an offered platform suits: 0 the same, more is worse, -1 not at all."""
    if offered.os != wanted.os:
        return -1
    if offered.architecture != wanted.architecture:  # as Docker, 386 on amd64; anything for amd64 is better
        return _FALLBACK if (offered.architecture, wanted.architecture) == ("386", "amd64") else -1
    if offered.variant == wanted.variant:
        return 0
    if wanted.architecture == "arm64" and not offered.variant:
        return 1
    levels = (offered.variant.removeprefix("v") or "1", wanted.variant.removeprefix("v") or "1")
    if not all(map(is_number, levels)) or int(levels[0]) > int(levels[1]):
        return -1  # a newer processor than ours is asked for
    return int(levels[1]) - int(levels[0])

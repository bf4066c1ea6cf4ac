"""Directories of the container's own: what an image declares with VOLUME, and `-v PATH` alone.

Docker makes an anonymous volume for each. Here they are what the image has there, or an empty directory, in the
container's own writable layer: what is written goes with `rm`. With --read-only they stay writable, by a mount of their
own (stages/rootfs.py). --volume and --tmpfs are mounted over them; over one that is given for a directory above,
they are shown again, as Docker mounts: by depth. Loaded only where there is one.
Source: image-spec config.md (Volumes).
"""

from __future__ import annotations

from collections.abc import Iterator

from pyrun.errors import UsageError

from .values import check_target, normal_path

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.config import Container
    from pyrun.spec.oci import Mount


_PATH_BYTES = 4095  # PATH_MAX


def of_image(declared: object) -> list[str]:
    """The directories, parents first. Raises UsageError in words about the image."""
    paths = [str(path) for path in declared] if isinstance(declared, dict) else []
    for path in paths:
        if "\0" in path or len(path) > _PATH_BYTES or normal_path(path) == "/":
            hint = "build the image without it"
            raise UsageError(f"the image's VOLUME {path!r:.200} is no directory below the root", hint)
    return sorted({normal_path(path) for path in paths})


def alone(texts: list[str]) -> list[str]:
    """The directories of every `-v PATH`. Raises UsageError."""
    return sorted({_alone(text) for text in texts if ":" not in text})


def _alone(text: str) -> str:
    path = normal_path(text)
    if text[:1] != "/" or path == "/":
        hint = "write SRC:DST[:ro]; or an absolute path other than / for a directory of the container's own"
        raise UsageError(f"invalid --volume: {text!r}", hint)
    check_target(f"--volume {text!r}", path, bind=True)
    return path


def _above(path: str) -> Iterator[str]:
    """The directories that *path* is in, but for the root."""
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def shown_again(container: Container, own: list[str], given: list[str], usual: list[str]) -> list[Mount]:
    """Mounts for those of container["volumes"] that another mount covers: the root's directory, once more.

    own: those of -v, which are wanted whatever covers them; given: destinations of the caller's mounts, whom the
    image's give way to; usual: of those every container has.
    """
    found: list[Mount] = []
    mine, theirs, all_ = set(own), set(given), {*given, *usual}
    for path in container.volumes:
        covers = all_ if path in mine else theirs
        if path not in theirs and any(above in covers for above in _above(path)):
            source = f"{container.keep}/rootfs{path}"
            found.append(
                {"destination": path, "type": "bind", "source": source, "options": ["rbind", "rprivate"]}
            )
    return found

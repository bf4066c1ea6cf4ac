"""`pyrun-oci list`: every container below one root, with who owns it. Source: runc-list(8)."""

from __future__ import annotations

import os
import pwd

from pyrun.errors import NotFound, PyrunError
from pyrun.store import bundles

from . import state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.values import Options


def containers(options: Options) -> list[dict[str, object]]:
    """The states, sorted by id. A --root that was given has to be there; the default one may not be yet."""
    root = bundles.root_of(options)
    if options.get("root_given"):
        try:
            os.listdir(root)
        except OSError as error:
            raise PyrunError(f"open {root}: {error.strerror}") from None
    found = []
    for identifier in bundles.ids(root):
        try:
            described = state.describe(bundles.load(root, identifier))
            described["owner"] = _owner(os.stat(f"{root}/{identifier}").st_uid)
        except (NotFound, FileNotFoundError):  # deleted meanwhile
            continue
        found.append(described)
    return found


def _owner(uid: int) -> str:
    """A name, or # and the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"

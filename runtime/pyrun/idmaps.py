"""The maps of a user namespace that an ordinary user makes: by newuidmap and newgidmap, or its own id alone.

Those two programs hold the right to map what /etc/subuid and /etc/subgid grant; without them a user may map itself
and nobody else, and then must give up setgroups. Cold: root writes the maps itself (stages/namespaces.py).
Source: man 7 user_namespaces, man 1 newuidmap, man 5 subuid.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from pyrun.errors import StageFailed, UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Linux


def write(section: Linux, pid: int) -> None:
    """uid_map and gid_map of *pid* from linux.uidMappings and gidMappings. Raises StageFailed, UsageError."""
    for key, kind, own in (("uidMappings", "uid", os.geteuid()), ("gidMappings", "gid", os.getegid())):
        mappings = section.get(key)
        assert isinstance(mappings, list)
        lines = [[item.get("containerID", 0), item.get("hostID", 0), item["size"]] for item in mappings]
        if len(lines) == 1 and lines[0][1:] == [own, 1]:
            _write_own(pid, kind, lines[0])
        else:
            _by_program(pid, kind, lines)


def _write_own(pid: int, kind: str, line: list[int]) -> None:
    try:
        if kind == "gid":
            with open(f"/proc/{pid}/setgroups", "w") as file:
                file.write("deny")
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write(" ".join(map(str, line)))
    except OSError as error:
        raise StageFailed("namespaces", f"map your own {kind} {line[1]}", error.errno) from None


def _by_program(pid: int, kind: str, lines: list[list[int]]) -> None:
    program = shutil.which(f"new{kind}map", path="/usr/local/bin:/usr/bin:/bin")
    if program is None:
        raise UsageError(
            f"linux.{kind}Mappings maps more than your own {kind}, and there is no new{kind}map here",
            "apt-get install uidmap",
        )
    words = [str(number) for line in lines for number in line]
    done = subprocess.run([program, str(pid), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        raise UsageError(
            f"linux.{kind}Mappings: {said}", f"see /etc/sub{kind}: what you may map stands there"
        )

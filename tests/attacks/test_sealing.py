"""No container can write to the binary it was started by (CVE-2019-5736), whichever way it is sealed.

The container's processes are init until execve, and the monitor's and planner's relatives; each of their binaries is
opened through /proc/PID/exe from inside, by a container that is as privileged as such a caller can make it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun import sealing
from unprivileged import SOLO, User, UserPyrun, as_user, make_users, own_directory

pytestmark = pytest.mark.needs("user_namespaces")
_OVERWRITE = """
import os, sys
path = f"/proc/self/fd/{sys.argv[1]}"
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
    try:
        fd = os.open(path, flags)
        os.write(fd, b"overwritten")
        print("written")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture
def installed(static_binary: Path) -> Iterator[Path]:
    """A copy of the binary that belongs to the user, as after `pip install --user`."""
    make_users()
    directory = own_directory(SOLO)
    copy = directory / "pyrun"
    shutil.copy(static_binary, copy)
    os.chown(copy, SOLO.uid, SOLO.uid)
    yield copy
    shutil.rmtree(directory)


def seal_as(user: User | None, path: Path, *wrapped: str) -> tuple[str, list[str]]:
    """(how it was sealed, what came of writing to it) for a caller: *user*, or root; *wrapped*: before the command."""
    program = f"""
import sys; sys.path.insert(0, {str(Path(sealing.__file__).parent.parent)!r})
from pyrun import sealing
import os
fd = sealing.descriptor({str(path)!r})
print(sealing.used, flush=True)
os.set_inheritable(fd, True)
os.execv("/usr/bin/python3", ["python3", "-c", {_OVERWRITE!r}, str(fd)])
"""
    words = [*wrapped, "/usr/bin/python3", "-c", program]
    words = as_user(user, *words) if user else words
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    how, *came = done.stdout.splitlines()
    return how, came


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_root_seals_by_mount(installed: Path) -> None:
    before = digest(installed)
    how, came = seal_as(None, installed)
    assert (how, came) == ("mount", ["Read-only file system"] * 3)
    assert digest(installed) == before


def test_root_of_a_user_namespace_seals_by_mount(installed: Path) -> None:
    before = digest(installed)
    how, came = seal_as(SOLO, installed, "unshare", "--user", "--map-root-user", "--mount")
    assert (how, came) == ("mount", ["Read-only file system"] * 3)
    assert digest(installed) == before


def test_a_user_seals_a_copy_in_memory(installed: Path) -> None:
    """The file is the user's own; in the copy not a byte can be changed."""
    before = digest(installed)
    how, came = seal_as(SOLO, installed)
    assert how == "memory" and came[:2] == ["Operation not permitted"] * 2 and "written" not in came
    assert digest(installed) == before


def test_root_of_a_user_namespace_without_a_mount_namespace(installed: Path) -> None:
    before = digest(installed)
    how, came = seal_as(SOLO, installed, "unshare", "--user", "--map-root-user")
    assert how == "memory" and "written" not in came
    assert digest(installed) == before


def test_a_user_needs_no_copy_of_roots_binary(static_binary: Path) -> None:
    make_users()
    before = digest(static_binary)
    how, came = seal_as(SOLO, static_binary)
    assert (how, came) == ("plain", ["Permission denied"] * 3)
    assert digest(static_binary) == before


def test_roots_binary_that_others_may_write_to_is_copied(installed: Path) -> None:
    os.chown(installed, 0, 0)
    installed.chmod(0o777)
    assert seal_as(SOLO, installed)[0] == "memory"


def test_the_test_bites(installed: Path) -> None:
    """Without a seal the user's own file is overwritten."""
    before = digest(installed)
    opened = f"import os; fd = os.open({str(installed)!r}, os.O_PATH); os.set_inheritable(fd, True); "
    opened += f'os.execv("/usr/bin/python3", ["python3", "-c", {_OVERWRITE!r}, str(fd)])'
    done = subprocess.run(
        as_user(SOLO, "/usr/bin/python3", "-c", opened), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["written"] * 3
    assert digest(installed) != before


def test_init_that_stays_in_a_users_container(installed: Path, static_binary: Path) -> None:
    """--init: pid 1 is our binary, installed by the very user whose root in the container writes to it."""
    user = UserPyrun(static_binary, SOLO)
    before = digest(installed)
    try:
        script = "cat /proc/1/comm; (echo over >/proc/1/exe) 2>&1; exec 3</proc/1/exe && echo over >/proc/self/fd/3"
        words = ("run", "--rm", "--net=none", "--init", "--privileged", "busybox", "sh", "-c", script)
        done = user(*words, env={"PYRUN_BINARY": str(installed)})
        assert done.stdout.startswith("pyrun") and done.returncode != 0, done
        assert "Read-only" in done.stdout + done.stderr or "busy" in done.stdout + done.stderr
    finally:
        user.close()
    assert digest(installed) == before

"""A container's directories: made before it starts, described for `ps`, taken away by its undo list.

    root/containers/ID    container.json config.json upper work rootfs hosts hostname resolv.conf log exit
    root/names/NAME       the id that holds the name
    run/containers/ID     undo (locked by planner, then monitor), state.json, starting (-> created) -> started

The run directory appears by a rename, complete with its locked undo list: whoever finds one without a lock
has found a dead planner or monitor, and may replay the list. `starting` holds the id until execve has worked;
the undo list of a container that never ran takes its directory and name with it.
"""

from __future__ import annotations

import fcntl
import posix
import time
from errno import EEXIST, ENOTEMPTY

from pyrun import launching
from pyrun.errors import Conflict, UsageError
from pyrun.jsonlite import dumps

from . import paths, state

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.spec.oci import Config
    from pyrun.store.record import Record

ID_LENGTH = 64

# A name is taken a moment before its container's run directory exists; a slow image or network lies between.
_NAME_GRACE_S = 60.0
# Longer than it takes from making a file to writing a line to it, even on a busy machine.
_WRITING_S = 0.5
_NAME_MAX = 240  # a file's name has 255 at most, and a suffix may follow

_ADJECTIVES = (
    "able amber brave brisk calm clear cosy deft eager early fair fleet fond frank glad grand happy hardy jolly keen"
    " kind lively loyal lucid mellow merry neat noble plain proud quick quiet ready sharp sleek sturdy swift"
    " tidy warm wise"
).split()
_NOUNS = (
    "anchor anvil beacon bridge buoy cabin canal canvas cargo comet compass copper crane delta dock ferry fjord galley"
    " harbour hatch helm island jetty keel lagoon lantern mast meadow oar pier pilot plank quay reef rudder sail"
    " schooner tide vessel wharf"
).split()


def new_id() -> str:
    """64 hex digits, as Docker's; /proc/sys/kernel/random would cost an open.

    The first twelve become the hostname, so they are not all decimal: resolvers take that for a number, not a name.
    """
    identifier = "0" * ID_LENGTH
    while identifier[:12].isdecimal():
        identifier = posix.urandom(ID_LENGTH // 2).hex()
    return identifier


def check_id(identifier: str) -> None:
    """Raise UsageError unless *identifier* can be a file name and nothing else."""
    if not _is_name(identifier) or len(identifier) > 1024:
        raise UsageError(
            f"invalid container id: {identifier!r:.80}", "letters, digits and _ . - + , at most 1024"
        )


def check_name(name: str) -> None:
    """Raise UsageError for a --name that Docker would refuse too."""
    if len(name) < 2 or len(name) > _NAME_MAX or not name[0].isalnum() or not _is_name(name):
        raise UsageError(
            f"invalid --name: {name!r:.80}",
            f"two to {_NAME_MAX} letters, digits and _ . - ; the first a letter or digit",
        )


def _is_name(text: str) -> bool:
    if not text or text in (".", "..") or not text.isascii():
        return False
    return all(c.isalnum() or c in "_.-+" for c in text)


def proposed_name(identifier: str, attempt: int) -> str:
    """A name to remember instead of an id; made unique by the id's start after two attempts."""
    number = int(identifier[:8], 16) + attempt
    name = f"{_ADJECTIVES[number % len(_ADJECTIVES)]}_{_NOUNS[number // 64 % len(_NOUNS)]}"
    return name if attempt < 2 else f"{name}_{identifier[:8]}"


def reserve_name(name: str, identifier: str) -> str:
    """Hold *name* (or a proposed one if empty) for this container. Raises Conflict naming the holder."""
    if name:
        check_name(name)
    directory = f"{paths.root()}/names"
    paths.make(directory)
    content = f"{identifier}\n{_planner()}\n".encode()
    for attempt in range(4):
        candidate = name or proposed_name(identifier, attempt)
        try:
            paths.write(f"{directory}/{candidate}", content, exclusive=True)
        except FileExistsError:
            if not name:
                continue
            if not _take_over(f"{directory}/{name}", content):
                raise _taken(name) from None
        return candidate
    raise Conflict("no free name found", "give one with --name")


def _taken(name: str) -> Conflict:
    holder = state.named_id(name)
    from pyrun.safe import shell_word

    hint = f"remove it with `pyrun rm {shell_word(name)}` or choose another name"
    if not is_there(holder):
        hint = "it is being started at this moment: wait for it, or choose another name"
    return Conflict(f"the name {name!r} is in use by container {holder[:12]}", hint)


def release_name(name: str, identifier: str) -> None:
    """Give the name back, if the container *identifier* still holds it."""
    path = f"{paths.root()}/names/{name}"
    if _content(path).partition(b"\n")[0] == identifier.encode():
        posix.unlink(path)


def _take_over(path: str, content: bytes) -> bool:
    """Hold a name whose planner died before its container came to be; False when somebody else holds it.

    Of several that find it so one gets it: they look again under the lock of the names' directory.
    """
    directory_fd = posix.open(path.rpartition("/")[0], posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)
        former = _content(path)
        if is_there(state.named_id(path.rpartition("/")[2])) or being_planned(path):
            return False
        if _content(path) != former:  # freed meanwhile, and taken by somebody else
            return False
        try:
            posix.unlink(path)
        except FileNotFoundError:  # its container has just been removed
            pass
        paths.write(path, content, exclusive=True)
        return True
    except FileExistsError:  # a start that did not have to ask found it free
        return False
    finally:
        posix.close(directory_fd)


def _content(path: str) -> bytes:
    try:
        return paths.read(path)
    except FileNotFoundError:
        return b""


def is_there(identifier: str) -> bool:
    """Whether the container has a directory: while it runs, or as long as it is kept."""
    homes = (f"{paths.run()}/containers", f"{paths.root()}/containers")
    return bool(identifier) and any(paths.exists(f"{home}/{identifier}") for home in homes)


def being_planned(path: str) -> bool:
    """Whether the start that took a name may still be under way: its second line names the planner, or it is new.

    path: of the name. One that stays empty was made by a planner that was killed, or had no room, before it wrote.
    """
    try:
        content = paths.read(path)
        if not content:
            time.sleep(_WRITING_S)
            content = paths.read(path)
        changed_at = posix.stat(path).st_mtime
    except FileNotFoundError:
        return False
    words = content.partition(b"\n")[2].split()
    if len(words) == 2 and words[0].isdigit():
        return state.start_time(int(words[0])) == int(words[1])
    return bool(content) and time.time() - changed_at < _NAME_GRACE_S


def _planner() -> str:
    """This process, as "pid start-time": a name whose container never came to be is free once its planner is gone."""
    return f"{launching.process.pid()} {state.own_start_time()}"


def begin(run_dir: str, undo: list[str], *, oci: bool = False) -> int:
    """Make the run directory with its locked undo list: the descriptor that holds the lock.

    Raises Conflict when a container of this id exists. oci: in runc's words, which callers look for.
    """
    parent, _, identifier = run_dir.rpartition("/")
    # a file name has room for 255 bytes
    staging = f"{paths.staging(parent)}/{identifier[:200]}.{posix.getpid()}"
    paths.make(staging)
    paths.make(parent)
    try:
        text = "".join([line + "\n" for line in undo]).encode("utf-8", "surrogateescape")
        paths.write(f"{staging}/undo", text, exclusive=True)
        undo_fd = posix.open(f"{staging}/undo", posix.O_RDWR | posix.O_CLOEXEC)
        fcntl.flock(undo_fd, fcntl.LOCK_EX)
        paths.write(f"{staging}/starting", identifier.encode())
        posix.rename(staging, run_dir)
    except OSError as error:  # it is there; or the file system is full
        for name in posix.listdir(staging):
            posix.unlink(f"{staging}/{name}")
        posix.rmdir(staging)
        if error.errno not in (ENOTEMPTY, EEXIST):
            raise
        message = "container with given ID already exists" if oci else f"container {identifier[:64]} exists"
        raise Conflict(message, "choose another id, or remove that one") from None
    return undo_fd


def progress(run_dir: str, stage: str) -> None:
    """`starting` becomes `created` (init waits for `start`) or `started` (the command executes): from now on the
    container outlives its planner."""
    posix.rename(f"{run_dir}/starting", f"{run_dir}/{stage}")


def undo_lines(identifier: str, keep: str, name: str, *, remove: bool) -> list[str]:
    """The end of an undo list: directory and name, at once (--rm) or only if it never ran; the run directory."""
    run_dir = f"{paths.run()}/containers/{identifier}"
    gone = [f"rmtree\t{keep}", f"unlink-if\t{paths.root()}/names/{name}\t{identifier}"] if keep else []
    if gone and not remove:
        gone = [f"guard\t{run_dir}/starting\t{identifier}", *gone, "end"]
    return [*gone, f"rmtree\t{run_dir}"]


def make_directories(keep: str, files: dict[str, bytes | str], record: Record, config: Config) -> None:
    """The lasting directory: upper and work for the overlay, /etc files, the record for `ps`, the OCI config.

    files: content, or the path of another container's file, which this one has too: it is never read, for its container
    may have made anything of it.
    """
    paths.make(f"{paths.root()}/containers")
    posix.mkdir(keep, 0o710)
    for name in ("upper", "work", "rootfs"):
        posix.mkdir(f"{keep}/{name}", 0o755)
    posix.chmod(f"{keep}/upper", 0o755)  # it is the root directory of the container: umask must not matter
    paths.write(f"{keep}/upper/.dockerenv", b"", 0o755)  # by it programs know where they are, as in Docker's
    for name, content in files.items():
        path = f"{keep}/{name}"
        if isinstance(content, str) and _linked(content, path):
            continue
        paths.write(path, content if isinstance(content, bytes) else b"", 0o644)
        posix.chmod(path, 0o644)
    paths.write(f"{keep}/config.json", dumps(config).encode("utf-8", "surrogateescape"))
    paths.write(f"{keep}/container.json", dumps(record).encode("utf-8", "surrogateescape"))


def _linked(source: str, path: str) -> bool:
    try:
        posix.link(source, path)
    except OSError:  # the other container was removed meanwhile
        return False
    return True


def write_state(run_dir: str, state: dict[str, object]) -> None:
    """state.json: in /run, replaced as a whole, without fsync."""
    paths.replace(f"{run_dir}/state.json", dumps(state).encode("utf-8", "surrogateescape"))

"""The entry: find the verb, parse its options, call the engine, word the outcome.

Errors are one line, `pyrun: message`, and perhaps a second, `hint: remedy`; a traceback only with --debug.
The interpreter is never finalized: that would cost a millisecond and a half and do nothing for anybody.
Exit statuses as Docker's. Of run and exec: 125 pyrun failed, 126 and 127 the command could not be started, else the
command's. Of other verbs: 1. Of all: 125 an option cannot be read, 1 too few or too many arguments.
"""

from __future__ import annotations

import posix
import sys

from pyrun import launching, notice
from pyrun.errors import PyrunError, UsageError

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyrun.engine.pull import Progress
    from pyrun.launch import Launch
    from pyrun.spec.values import Options

_STARTING = ("run", "exec")


def main(argv: list[str]) -> None:
    """Run one command line and leave the process with its exit status. Does not return."""
    words = argv[1:]
    command = posix.environ.get(b"PYRUN_COMMAND", b"").rpartition(b"/")[2]
    if command == b"pyrun-oci":
        from . import oci

        oci.main(words)
    if command == b"pyrun-warm":
        from . import warm

        warm.serve()
    debug = _take(words, "--debug")
    notice.install(_tell)
    try:
        status = _dispatch(words)
    except PyrunError as error:
        if debug:
            _traceback(error)
        _tell(f"pyrun: {error.message}")
        if error.hint:
            _tell(f"hint: {error.hint}")
        status = error.status if _starts(words) or _is_misread(error) else 1
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except Exception as error:  # noqa: BLE001  (the last resort: one line, not a traceback)
        if debug:
            _traceback(error)
            status = 125
        else:
            status = _unforeseen(error, words)
    leave(status)


def leave(status: int) -> None:
    """End at once, with what was printed flushed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:  # the reader is gone; nobody is left to tell
            status = status or 1
        except OSError as error:
            status = max(status, _untold(error))
    launching.process.leave(status)


def _take(words: list[str], option: str) -> bool:
    """Whether a global option stands before the verb; it is taken out."""
    for index, word in enumerate(words):
        if word == option:
            del words[index]
            return True
        if word[:1] != "-":
            break
    return False


def _to_stderr(text: str) -> None:
    data = (text + "\n").encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[posix.write(2, data) :]
    except OSError:
        return


def _tell(text: str) -> None:
    """An error, a hint or a notice: one line on standard error, whatever an image or a user named in it."""
    if not text.isprintable():
        from pyrun.safe import visible

        text = visible(text)
    _to_stderr(text)


def _traceback(error: Exception) -> None:
    from . import traces

    _to_stderr(traces.text(error))


def _unforeseen(error: Exception, words: list[str]) -> int:
    """Tell an error nobody worded, in one line with the system's path, and its remedy; returns the exit status.

    What is the machine's (a full disk, a read-only one, a variable that names no directory) is no bug of ours.
    """
    message = f"unexpected {type(error).__name__}: {error}".split("\n")[0]
    remedy = ""
    if isinstance(error, OSError) and error.strerror:
        path = str(error.filename or "")
        message = f"{path}: {error.strerror}" if path else error.strerror
        remedy = _remedy(error.errno or 0, path)
    _tell(f"pyrun: {message}")
    bug = "this may be a bug in pyrun; run the command again with --debug and report what it prints"
    _tell(f"hint: {remedy or bug}")
    return 1 if remedy and words and not _starts(words) else 125


def _starts(words: list[str]) -> bool:
    """Whether it is a command whose own status its caller waits for, in Docker's management form or not."""
    verb = words[1:2] if words[:1] == ["container"] else words[:1]
    return bool(verb) and verb[0] in _STARTING


def _is_misread(error: PyrunError) -> bool:
    from .options import Misread

    return isinstance(error, Misread)


def _remedy(number: int, path: str) -> str:
    """What to do about an error of the system; "" for one that says nothing about the machine."""
    import errno

    remedies = {
        errno.ENOSPC: "the file system is full: see `df` and `df -i`; `pyrun rm` and `pyrun rmi` make room",
        errno.EDQUOT: "the quota is used up: see `quota`; `pyrun rm` and `pyrun rmi` make room",
        errno.EMFILE: "more files have to be open at once: ulimit -n 1024",
        errno.ENFILE: "more files have to be open on this host: sysctl fs.file-max",
        errno.EIO: "the device failed: see dmesg",
    }
    if number in remedies:
        return remedies[number]
    for variable in ("PYRUN_ROOT", "PYRUN_RUNROOT"):
        place = posix.environ.get(variable.encode(), b"").decode("utf-8", "surrogateescape").rstrip("/")
        if place and (path == place or path.startswith(f"{place}/")):
            return f"{variable} is {place}: it has to name a directory pyrun may write in, or can make"
    if number == errno.EROFS:
        return "the file system is read-only; PYRUN_ROOT and PYRUN_RUNROOT name other directories"
    return ""


def _dispatch(words: list[str]) -> int:
    """Exit status of the command line without `pyrun` and --debug."""
    from . import options, tables

    if not words or words[0] in ("-h", "--help", "help", "-v", "--version"):
        return _about(words)
    _check_places()
    verb, rest = options.find_verb(words)
    launching.process.only_here(verb not in _STARTING or "--dry-run" in rest)
    parsed, arguments = ({"help": True}, []) if _wants_help(rest) else options.parse(tables.VERBS[verb], rest)
    if parsed.get("help"):
        return _help([verb])
    if verb == "run":
        return _run(parsed, arguments)
    if verb == "exec":
        from pyrun.engine.exec_ import exec_

        return exec_(parsed, arguments[0], arguments[1:])
    import gc

    from . import verbs

    gc.enable()  # the bundle switched it off
    return verbs.call(verb, parsed, arguments)


def _check_places() -> None:
    """Raises: UsageError for a directory of ours that cannot be one."""
    for name in (b"PYRUN_ROOT", b"PYRUN_RUNROOT"):
        given = posix.environ.get(name, b"").decode("utf-8", "replace")
        if given[:1] not in ("/", ""):
            raise UsageError(
                f"{name.decode()} is no absolute path: {given!r}",
                "give a directory that begins with /, or unset it",
            )
        if "\n" in given or "\t" in given:  # as store/bundles.py has it
            raise UsageError(
                f"{name.decode()} holds a tab or a line break: {given!r}",
                "give another directory, or unset it",
            )


def _wants_help(rest: list[str]) -> bool:
    """--help before the first argument (what follows IMAGE belongs to the command)."""
    for word in rest:
        if word == "--help":
            return True
        if word == "--" or word[:1] != "-":
            return False
    return False


def _about(words: list[str]) -> int:
    if words and words[0] in ("-v", "--version"):
        from pyrun import __version__

        return _print(f"pyrun version {__version__}")
    return _help(words[1:] if words[:1] == ["help"] else [])


def _help(words: list[str]) -> int:
    from . import help as help_

    return help_.show(words)


def _run(parsed: Options, arguments: list[str]) -> int:
    bundle = bool(parsed.get("bundle"))
    if bundle:
        from pyrun.engine import bundle as bundles

        from . import tables

        given = [row[2] for row in tables.VERBS["run"][0] if parsed[row[2]] not in (row[3], [])]
        if not bundles.TAKES.issuperset(given):
            raise bundles.refused(given)
        if parsed.get("dry_run"):
            return _show(bundles.plan_only(parsed, arguments), parsed)
        return _print(bundles.run(parsed, arguments))
    from pyrun.engine import run

    if parsed.get("dry_run"):
        return _show(run.plan_only(parsed, arguments[0], arguments[1:]), parsed)
    return _print(run.run(parsed, arguments[0], arguments[1:], _progress))


def _print(line: str) -> int:
    """To standard output, without the stream, which makes an interpreter whole; returns the exit status."""
    data = (line + "\n").encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[posix.write(1, data) :]
    except BrokenPipeError:  # the reader is gone; nobody is left to tell
        return 1
    except OSError as error:
        return _untold(error)
    return 0


def _untold(error: OSError) -> int:
    _to_stderr(f"pyrun: cannot write to standard output: {error.strerror}")
    return 1


def _progress(quiet: bool) -> AbstractContextManager[Progress | None]:
    """For an image that is not here."""
    from . import verbs_cold

    return verbs_cold.progress(quiet=quiet)


def _show(plan: Launch, parsed: Options) -> int:
    from pyrun.plan.explain import document

    from . import text

    text.write(document(plan, str(parsed.get("explain") or "text")) + "\n")
    return 0

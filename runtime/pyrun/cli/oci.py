"""pyrun-oci's entry: runc's command line in, one call of engine/oci, runc's log lines and exit statuses out.

Statuses: what `run` and `exec` ran; 255 when `exec` could not run it; 1 for every other failure; 3 for a command that
does not exist. An error is one line of the log (--log, else standard error) and, with --log, one on standard error:
that is all that containerd, podman and Docker read; oci_words.py has the words they look for. Here and in
oci_options.py, oci_tables.py is only what `create` ... `state` need; the other commands: oci_verbs.py.
Source: runc(8), runc's behaviour.
"""

from __future__ import annotations

import posix

from pyrun import launching, notice
from pyrun.errors import PyrunError, UsageError

from .oci_options import Misused, parse
from .oci_tables import COMMANDS, GLOBAL

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.values import Options

_HELP, _VERSION = ("help", "h", ""), "--version"
_ID_SIGNS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.")
STATUS_UNKNOWN_COMMAND = 3  # urfave/cli's, kept


def main(words: list[str]) -> None:
    """Run one command line and leave the process with its exit status. Does not return."""
    from .main import leave

    options: Options = {"log": "", "log_format": "text", "log_fd": -1, "debug": False}
    notice.install(lambda text: log(options, "warning", text))
    command = ""
    try:
        command, rest = _before(options, words)
        status = _command(options, command, rest)
    except PyrunError as error:
        status = _failed(options, command, error)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except Exception as error:  # noqa: BLE001  (the last resort: one line, not a traceback)
        status = _failed(options, command, error)
    leave(status)


def log(options: Options, level: str, message: str) -> None:
    """One line of the log, and for an error one on standard error."""
    from . import oci_log

    oci_log.write(options, level, message)


def write(data: str) -> None:
    """Everything to standard output. Raises BrokenPipeError."""
    view = memoryview(data.encode("utf-8", "surrogateescape"))
    while view:
        view = view[posix.write(1, view) :]


def _before(options: Options, words: list[str]) -> tuple[str, list[str]]:
    """Read the global options into *options* and open the log; returns the command ("" to show help) and the rest."""
    found, rest = parse(GLOBAL, words, stops=True)
    if found["help"] or found["version"]:
        return "help" if found["help"] else _VERSION, []
    command = rest[0] if rest else ""
    root = _root(str(found["root"])) if found["root"] else ""
    options.update(found, root=root, root_given=bool(root))
    if found["log"]:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_SYNC | posix.O_CLOEXEC
        path, options["log"] = str(found["log"]), ""
        try:
            options["log_fd"] = posix.open(path, flags, 0o644)
        except OSError as error:
            raise PyrunError(f"open {path}: {error.strerror}") from None
        options["log"] = path
    _check(options)
    return command, rest[1:]


def _root(path: str) -> str:
    """--root, absolute and tidy. Raises UsageError for /, which a script's empty variable may become."""
    parts: list[str] = []
    for part in (path if path[:1] == "/" else f"{posix.getcwd()}/{path}").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise UsageError("Option --root argument should not be set to /")
    return "/" + "/".join(parts)


def _check(options: Options) -> None:
    """The global options that have few values. Raises UsageError."""
    if options["log_format"] not in ("", "text", "json"):
        form, options["log_format"] = options["log_format"], "text"
        raise UsageError(f"invalid log-format: {form}")
    if options["cgroup_manager"] not in ("", "cgroupfs", "systemd", "disabled"):
        raise UsageError(
            f"--cgroup-manager is cgroupfs, systemd or disabled, not '{options['cgroup_manager']}'"
        )
    if str(options["rootless"]).lower() not in ("", "auto", "true", "false", "1", "0", "t", "f"):
        raise UsageError(f"--rootless is true, false or auto, not '{options['rootless']}'")


def _command(options: Options, command: str, words: list[str]) -> int:
    """Parse and run one command."""
    launching.process.only_here(command not in ("create", "run", "exec"))
    if command not in COMMANDS:
        return _without(options, command, words)
    table, least, most, stops = COMMANDS[command]
    found, arguments = parse(table, words, stops=stops)
    if found["help"]:
        from . import oci_help

        write(oci_help.page(command))
        return 0
    _count(command, len(arguments), least, most)
    options.update(found)
    if not options["root"] and (posix.geteuid() != 0 or b"XDG_RUNTIME_DIR" in posix.environ):
        from . import oci_verbs

        oci_verbs.make_user_root()
    if options["debug"]:
        from . import oci_trail

        defaults, _ = parse(table, [], stops=stops)
        oci_trail.begin(lambda text: log(options, "debug", text), command, found, defaults, arguments)
    return _call(options, command, arguments)


def _without(options: Options, command: str, words: list[str]) -> int:
    """Version and help, and words that are no command."""
    from . import oci_help

    if command == _VERSION:
        write(oci_help.version())
        return 0
    topic = (words or [""])[0] if command in _HELP else command
    if topic and topic not in COMMANDS:
        log(options, "error", f"No help topic for '{topic}'\n")
        return STATUS_UNKNOWN_COMMAND
    write(oci_help.page(topic))
    return 0


def _count(command: str, given: int, least: int, most: int) -> None:
    """Refuse too few or too many arguments, in runc's words."""
    if given < least or 0 <= most < given:
        kind = "exactly" if least == most else "a minimum of" if given < least else "a maximum of"
        program = posix.environ.get(b"PYRUN_COMMAND", b"pyrun-oci").decode("utf-8", "replace")
        wanted = least if given < least else most
        raise Misused(f'{program}: "{command}" requires {kind} {wanted} argument(s)')


def _call(options: Options, command: str, arguments: list[str]) -> int:
    """The engine's recipe. Each is imported alone: `state` loads no `create`."""
    named = COMMANDS[command][1] and not options.get("regex")
    identifier = _identifier(arguments[0]) if named else "".join(arguments[:1])
    rest: list[object] = []
    recipe: Any
    if command == "create":
        from pyrun.engine.oci.create import create as recipe
    elif command == "start":
        from pyrun.engine.oci.start import start as recipe
    elif command == "delete":
        from pyrun.engine.oci.delete import delete as recipe
    elif command == "kill":
        from pyrun.engine.oci.kill import kill as recipe

        rest = [arguments[1] if len(arguments) > 1 else "SIGTERM"]
    elif command == "run":
        from pyrun.engine.oci.run import run as recipe
    elif command == "exec":
        from pyrun.engine.oci.exec_ import exec_ as recipe

        rest = [arguments[2:] if arguments[1:2] == ["--"] else arguments[1:]]
    elif command == "state":
        from pyrun.engine.oci.state import state
        from pyrun.jsonlite import indented

        write(indented(state(options, identifier)))
        return 0
    else:
        from . import oci_verbs

        return oci_verbs.call(command, options, arguments)
    if command in ("create", "run"):
        from pyrun.launch import persistently

        return int(persistently(lambda: recipe(options, identifier)))
    return int(recipe(options, identifier, *rest))


def _identifier(text: str) -> str:
    """*text* if it can be a container's id. Raises UsageError in runc's words; store/bundles.py checks for itself."""
    if not text:
        raise UsageError("container id cannot be empty")
    if text in (".", "..") or not _ID_SIGNS.issuperset(text):
        raise UsageError("invalid container ID format")
    return text


def _failed(options: Options, command: str, error: Exception) -> int:
    """Tell it; returns the exit status."""
    from . import oci_words

    if isinstance(error, Misused):
        from . import oci_help

        write(oci_help.complaint(command, str(error)) + oci_help.page(command))
    if options["debug"]:
        from . import traces

        log(options, "debug", traces.text(error))
    log(options, "error", oci_words.of(command, error))
    return 255 if command == "exec" and not isinstance(error, Misused) else 1

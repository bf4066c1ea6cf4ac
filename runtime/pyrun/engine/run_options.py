"""Values of `run`'s options that are wrong on this machine, and what the kernel refused, in the option's own words.

`check` finds what can be known before anything is made; `worded` says of a step that failed which option it was for,
so that nobody has to know config.json or the stages to understand it.
"""

from __future__ import annotations

import errno
import posix

from pyrun.errors import NotFound, PyrunError, StageFailed, UsageError
from pyrun.spec import capabilities, env_file, values
from pyrun.store import paths, platforms

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.network.requests import Request
    from pyrun.spec.values import Options


PIDS_MAXIMUM = 1 << 22  # PID_MAX_LIMIT of linux/threads.h: the pids controller takes no more


def check(options: Options) -> None:
    """Raises UsageError. --env-file is read here, before the container holds a name, and goes before --env."""
    for key in ("cap_add", "cap_drop"):
        for word in values.texts(options.get(key)):
            _check_capability(f"--{key.replace('_', '-')} {word!r}", word)
    if options.get("cpus"):
        _check_cpus(options)
    _check_numbers(options)
    if options.get("platform"):
        platforms.parse(str(options["platform"]))
    for text in values.texts(options.get("ulimit")):
        _check_open_files(text)
    read = env_file.read(values.texts(options.get("env_file")))
    options["env"], options["env_file"] = [*read, *values.texts(options.get("env"))], []


def _check_capability(told: str, word: str) -> None:
    try:
        capabilities.parse_add_drop([word], [], False)
    except UsageError as error:
        hint = error.hint or "one of `man 7 capabilities`, for example NET_ADMIN, or ALL"
        raise UsageError(f"{told}: unknown capability", hint) from None


def _check_cpus(options: Options) -> None:
    """Between Docker's least and what there is; 0 is no limit."""
    text, there = str(options["cpus"]), posix.cpu_count() or 1
    quota_us = values.cpu_quota_us(text, period_us := 100_000)
    if quota_us > there * period_us:
        raise UsageError(
            f"--cpus {text:.40}: this machine has {there} processors",
            f"from 0.01 to {there}, or 0 for no limit",
        )
    if not quota_us:
        options["cpus"] = ""


def _check_numbers(options: Options) -> None:
    pids, seconds = options.get("pids_limit") or 0, options.get("stop_timeout") or 0
    if isinstance(pids, int) and pids > PIDS_MAXIMUM:
        raise UsageError(f"--pids-limit {pids}: Linux has {PIDS_MAXIMUM} at most", "0 or -1 is no limit")
    if isinstance(seconds, int) and seconds < -1:
        raise UsageError(f"--stop-timeout {seconds}: a negative time", "give seconds, or -1 for ever")


def _check_open_files(text: str) -> None:
    """Of the limits, that on open files has an end of its own: not even root goes beyond it. Source: man 5 proc."""
    kind, _, hard = values.rlimit(text)
    if kind != "RLIMIT_NOFILE":
        return
    most = int(paths.read("/proc/sys/fs/nr_open"))
    if hard > most:
        raise UsageError(
            f"--ulimit {text}: this kernel allows {most} open files at most", f"write nofile={most}, or less"
        )


def worded(error: PyrunError, options: Options, request: Request) -> PyrunError:
    """The error as one about an option, if it was for one; else as it is."""
    if request.netns and not paths.exists(request.netns):
        return _gone(request.mode, request.target)
    if not isinstance(error, StageFailed):
        return error
    told, hint = _option(error, options)
    if not told:
        return error
    what = error.message.removeprefix(f"{error.stage}: ")
    return UsageError(f"{told}: {what}", hint or error.hint)


def _gone(mode: str, target: str) -> PyrunError:
    """The error about a namespace that went between the look at it and the start in it."""
    hint = (
        "`pyrun ps` lists those that run"
        if mode == "container"
        else "`ip netns list` shows the names there are"
    )
    return NotFound(f"--network {mode}:{target}: it went while this container was starting", hint)


# Of a directory of the container's own.
_PLACE_OF_ITS_OWN = {
    errno.ENOTDIR: "a directory goes on a directory",
    errno.EROFS: "what is mounted above it is read-only: make the directory there first, for it to go on",
}


def _volume(error: StageFailed, texts: list[str]) -> tuple[str, str]:
    """_option, of what -v and the image's VOLUME ask for."""
    message, own_hint = error.message, _PLACE_OF_ITS_OWN.get(error.number, "")
    for text in texts:
        path = values.normal_path(text)
        if ":" not in text and (f"directory {path} if" in message or f"root's own {path} there" in message):
            return f"--volume {text}", own_hint
        mount = values.volume(text) if ":" in text else {"source": "", "destination": ""}
        if f"show the host's {mount['source']} at {mount['destination']}" in message:
            hint = "a directory goes on a directory, a file on a file; and onto /proc nothing but a procfs"
            return f"--volume {text}", hint if error.number in (errno.ENOTDIR, errno.EISDIR) else ""
    path = message.partition("root's own ")[2].partition(" there again")[0]
    return (f"the image's VOLUME {path}", own_hint) if path else ("", "")


def _option(error: StageFailed, options: Options) -> tuple[str, str]:
    """(the option and its value, the remedy); ("", "") if it was for none."""
    message, no_directory = error.message, error.number in (errno.ENOTDIR, errno.EISDIR)
    if (told := _volume(error, values.texts(options.get("volume"))))[0]:
        return told
    for text in values.texts(options.get("tmpfs")):
        if f"mount a tmpfs on {values.tmpfs(text)['destination']}" in message:
            hint = (
                "it goes on a directory"
                if no_directory
                else "options are size=, mode=, uid=, gid=, nr_inodes="
            )
            return f"--tmpfs {text}", hint
    directory = str(options.get("workdir") or "")
    if directory and f"directory {values.normal_path(directory)}" in message:
        return f"--workdir {directory}", "name a directory, or one that can be made" if no_directory else ""
    for text in values.texts(options.get("sysctl")):
        if f"kernel parameter {text.partition('=')[0].replace('.', '/')} " in message:
            return (
                f"--sysctl {text}",
                "the kernel refuses this value, or has no such parameter: see `sysctl -a`",
            )
    for text in values.texts(options.get("ulimit")):
        if f"limit {text.partition('=')[0]} to " in message:
            return (
                f"--ulimit {text}",
                "only who has CAP_SYS_RESOURCE can raise a hard limit: see `ulimit -H -a`",
            )
    return "", ""

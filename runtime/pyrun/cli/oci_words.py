"""The words of errors: which ones callers look for, and the form runc gives them.

Callers do not read exit statuses; they search the text. What is raised in the engine has to contain:

    | words                                  | when                              | who looks, and what it does then
    |----------------------------------------|-----------------------------------|------------------------------------
    | container does not exist               | no state directory of that id     | containerd kill, delete: "no such
    |   ("does not exist")                   |                                   |   container"; podman: it has exited
    | container not running                  | kill of one that has stopped      | containerd, cri-o: process finished
    |   ("no such process", and containerd also "os: process already finished")
    | executable file not found in $PATH     | args[0] is nowhere                | podman, Docker, docker CLI: 127
    | no such file or directory              | args[0] is a path to nothing      | podman, Docker, docker CLI: 127
    | permission denied                      | args[0] is not executable         | podman, Docker, docker CLI: 126
    | is a directory                         | args[0] is one                    | Docker: 126
    | operation not permitted                | anything else that needs rights   | podman: 126
    | not a directory                        | a mount of a file on a directory  | Docker: 127 and advice on mounts
    | exec: "NAME"                           | args[0] cannot be executed        | Docker before 24: NAME must be in it
    | container with given ID already exists | create twice                      | people
    | cannot start an already running container, a container that has stopped      | people, runc's tests
    | cannot delete container ID that is not stopped: STATUS                       | people, runc's tests
    | cannot exec in a stopped container, in a paused container                    | people, runc's tests
    | invalid container ID format, container id cannot be empty                    | people
    | chdir to cwd ("PATH") set in config.json | the directory is not there       | scripts
    | container's cgroup is not empty        | somebody is in linux.cgroupsPath  | scripts
    | error running KIND hook #N             | a hook failed                     | scripts, engines' tests

Lower case matters: cri-o and the docker CLI do not fold it, and Go's texts of errno begin with a small letter.
containerd takes the last level=error line of the log, podman the only one. Sources: containerd
cmd/containerd-shim-runc-v2/process/utils.go, podman libpod/oci_util.go, moby daemon/errors.go, cri-o
internal/oci/runtime_oci.go, runc libcontainer/error.go, all as of 2026-08.
"""

from __future__ import annotations

import errno
import posix

from pyrun.errors import CommandError, PyrunError

_PREFIXES = {"create": "pyrun-oci create failed: ", "run": "pyrun-oci run failed: ", "exec": "exec failed: "}


def of(command: str, error: Exception) -> str:
    """The line for *error*, which ended *command*."""
    from .oci_options import Misused

    if isinstance(error, Misused):
        return error.message
    prefix = _PREFIXES.get(command, "")
    if isinstance(error, CommandError):
        prefix += "unable to start container process: "
    if not isinstance(error, PyrunError):
        return prefix + as_go_words(_unexpected(error))
    hint = f" ({error.hint})" if error.hint else ""
    return f"{prefix}{as_go_words(error.message)}{hint}"


def as_go_words(message: str) -> str:
    """Texts of errno after a colon in Go's spelling: `: No such file` becomes `: no such file`."""
    for number in errno.errorcode:
        text = posix.strerror(number)
        if f": {text}" in message:
            message = message.replace(f": {text}", f": {text[0].lower()}{text[1:]}")
    return message


def _unexpected(error: Exception) -> str:
    """An error nobody foresaw, as one line; those of the system keep their path."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else f"system call: {error.strerror}"
    return f"unexpected {type(error).__name__}: {error}".split("\n")[0]

"""Seccomp on the hot path: which compiled filter a container gets, found in the cache.

Compiling Docker's profile takes libseccomp 5 to 9 ms, so it is done once per profile, capability mask, kernel
and libseccomp. Those are the key, and the key is the file's name:

    root/cache/seccomp/default-<data>-<mask>-<machine>.bpf    Docker's profile
                       profile-<sha256>-<machine>.bpf         one of a config.json or of --security-opt seccomp=FILE
                       libseccomp -> the library that compiled them

<machine> is kernel, architecture, our generator's version, and inode and time of the library behind the link:
that tells of an upgrade without loading it. Not here: reading profiles (seccomp_profile.py), checking
them (seccomp_check.py), compiling (seccomp_compile.py), loading the filter (csrc/init_security.c).
"""

from __future__ import annotations

import posix

from pyrun.digest import fingerprint
from pyrun.errors import UsageError
from pyrun.spec import capabilities
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.spec.oci import Config, Seccomp

# First half of the SHA-256 of seccomp_default.json; seccomp_generate.py prints it, a test compares.
DEFAULT_DATA = "8dd7397df1f50987"
# To be raised when seccomp_compile.py or seccomp_profile.py make other programs of the same profile.
GENERATOR = 3

# seccomp(2). TSYNC has no bit here: init has one thread. The kernel takes WAIT_KILLABLE_RECV with a listener alone.
FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_NEW_LISTENER, FLAG_WAIT_KILLABLE_RECV = 1 << 1, 1 << 2, 1 << 3, 1 << 5
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": FLAG_WAIT_KILLABLE_RECV,
}
NOTIFY = "SCMP_ACT_NOTIFY"
_PASSING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
_NOT_COMPILED = ("listenerPath", "listenerMetadata", "flags")  # they change nothing in the program

# The annotation of config.json that says a container runs under the built-in profile.
PROFILE = "pyrun.seccomp"

INSTRUCTION_BYTES, INSTRUCTIONS_MAX = 8, 4096  # struct sock_filter; BPF_MAXINSNS
LIBRARY_LINK = "libseccomp"


def default_filter(capabilities_mask: int) -> tuple[str, int]:
    """(path of the BPF program, flags for seccomp(2)) of Docker's profile for a bounding set.

    Raises PyrunError when it must be compiled and libseccomp is missing, OSError for the cache's files.
    """
    name = f"default-{DEFAULT_DATA}-{capabilities_mask:x}"
    path = _cached(name)
    if not path:
        from pyrun.spec import seccomp_profile

        path = _compile(name, seccomp_profile.default_profile(capabilities_mask))
    return path, FLAG_SPEC_ALLOW


def profile_filter(profile: Seccomp) -> tuple[str, int]:
    """The same for an OCI `linux.seccomp` object. Raises UsageError, naming the field, for a faulty one.

    An empty profile gives a filter that allows everything. `runtime-spec config-linux.md#seccomp`.
    """
    program: Any = profile
    if any(name in profile for name in _NOT_COMPILED):
        _check_outside_program(profile)
        program = {name: value for name, value in profile.items() if name not in _NOT_COMPILED}
    text = repr(program)
    if NOTIFY in text and notifies(profile) and not profile.get("listenerPath"):
        raise UsageError(f"linux.seccomp: {NOTIFY} needs linux.seccomp.listenerPath, where an agent answers")
    name = "profile-" + fingerprint(text.encode("utf-8", "surrogatepass"))
    return _cached(name) or _compile(name, program), _flags(profile)


def _check_outside_program(profile: Seccomp) -> None:
    """What the cache's key says nothing about. The full check, which costs milliseconds, only if something is odd."""
    flags = profile.get("flags") or []
    known = isinstance(flags, list) and all(isinstance(flag, str) and flag in FLAGS for flag in flags)
    if not known or profile.get("listenerPath") or profile.get("listenerMetadata"):
        from pyrun.spec import seccomp_check

        seccomp_check.check_outside_program(profile)


def notifies(profile: Seccomp) -> bool:
    """Whether an action of *profile* is NOTIFY: then its listener goes to an agent (engine/oci/seccomp_agent.py)."""
    rules = profile.get("syscalls")
    actions = [
        rule.get("action") for rule in (rules if isinstance(rules, list) else []) if isinstance(rule, dict)
    ]
    return NOTIFY in (profile.get("defaultAction"), *actions)


def allows(profile: Seccomp, calls: tuple[str, ...]) -> bool:
    """Whether *profile* lets every one of *calls* pass, whatever its arguments."""
    given = profile.get("syscalls")
    rules = given if isinstance(given, list) else []
    if profile.get("defaultAction") in _PASSING:
        exceptions = [name for rule in rules if rule["action"] not in _PASSING for name in rule["names"]]
        return set(calls).isdisjoint(exceptions)
    allowed: set[str] = set()
    for rule in rules:
        if rule["action"] in _PASSING and not rule.get("args"):
            allowed.update(rule["names"])
    return allowed.issuperset(calls)


def _flags(profile: Seccomp) -> int:
    """Those of the profile, and with NOTIFY the one that makes a listener. As runc: only no list means the default."""
    given = profile.get("flags")
    flags = FLAG_SPEC_ALLOW
    if isinstance(given, list):
        flags = 0
        for flag in given:
            flags |= FLAGS[flag]
    if profile.get("listenerPath") and notifies(profile):
        return flags | FLAG_NEW_LISTENER
    return flags & ~FLAG_WAIT_KILLABLE_RECV


def _path(name: str) -> str:
    """Where the program of that name is on this machine as it is now."""
    directory = paths.cache() + "/seccomp"
    system = posix.uname()
    try:
        library = posix.stat(f"{directory}/{LIBRARY_LINK}")
        identity = f"{library.st_ino:x}.{library.st_mtime_ns:x}"
    except OSError:
        identity = "0"  # never compiled, or upgraded: no program has this name
    return f"{directory}/{name}-{system.release}-{system.machine}-{GENERATOR}-{identity}.bpf"


def _cached(name: str) -> str:
    """The path of a usable program, or nothing. An empty or cut file counts as none."""
    path = _path(name)
    try:
        size = posix.stat(path).st_size
    except OSError:
        return ""
    whole = 0 < size <= INSTRUCTION_BYTES * INSTRUCTIONS_MAX and size % INSTRUCTION_BYTES == 0
    return path if whole else ""


def _compile(name: str, profile: Seccomp) -> str:
    """The cold path: compile, note the library, write the program where the next start finds it."""
    from pyrun.spec import seccomp_compile

    program = seccomp_compile.compile_profile(profile)
    directory = paths.cache() + "/seccomp"
    paths.make(directory)
    seccomp_compile.note_library(f"{directory}/{LIBRARY_LINK}")
    seccomp_compile.forget_old(directory)
    path = _path(name)
    paths.replace(path, program, lasting=True)
    return path


def of_config(config: Config) -> tuple[str, int] | None:
    """(path of the compiled program, flags) of a container's config; None if it has no filter."""
    profile = _profile_of(config)
    if isinstance(profile, dict):
        return profile_filter(profile)
    if profile:
        return default_filter(capabilities.mask_of(config["process"]["capabilities"]["bounding"]))
    return None


def flags_of(config: Config) -> int | None:
    """The flags alone, with nothing compiled. Raises UsageError for faulty ones."""
    profile = _profile_of(config)
    if isinstance(profile, dict):
        _check_outside_program(profile)
        return _flags(profile)
    return FLAG_SPEC_ALLOW if profile else None


def _profile_of(config: Config) -> Seccomp | str:
    """linux.seccomp; "default" for Docker's profile, "" for none."""
    section, annotations = config.get("linux"), config.get("annotations")
    profile = section.get("seccomp") if isinstance(section, dict) else None
    if isinstance(profile, dict):
        return profile
    is_default = isinstance(annotations, dict) and annotations.get(PROFILE) == "default"
    return "default" if is_default and isinstance(config["process"], dict) else ""

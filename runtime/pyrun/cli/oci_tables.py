"""runc's commands and their options as data: what is not here, pyrun-oci does not understand.

An option is `name[,letter]:kind[?][=default]`; the kinds are

    b flag   s text   i whole number   l text, repeatable   n whole number, repeatable   d duration (Go's: 1m30s)

and `?` means None when it is not given, where "not given" is not the same as the default. A value is found under the
name with _ for -. Help: oci_help.py, whose rows a test holds against these. Source: runc 1.5's runc(8) pages; crun(1)
for --cgroup-manager, --config and --regex.
"""

from __future__ import annotations

# Before the command. root and criu: see oci.py and, for what crun calls disabled, stages/cgroup.py.
GLOBAL = "version,v:b debug:b log:s log-format:s=text root:s systemd-cgroup:b rootless:s=auto cgroup-manager:s criu:s"

# Accepted, as runc does, without a word in the help.
HIDDEN = ("criu", "all", "kernel-memory", "kernel-memory-tcp")

_NEW = "bundle,b:s config,f:s console-socket:s pidfd-socket:s pid-file:s no-pivot:b no-new-keyring:b preserve-fds:i"
_EXEC = "console-socket:s pidfd-socket:s cwd:s env,e:l tty,t:b user,u:s additional-gids,g:n process,p:s detach,d:b"
_EXEC += (
    " pid-file:s process-label:s apparmor:s no-new-privs:b? cap,c:l preserve-fds:i cgroup:l ignore-paused:b"
)
_UPDATE = "resources,r:s blkio-weight:i cpu-period:s cpu-quota:s cpu-burst:s cpu-share:s cpu-rt-period:s"
_UPDATE += (
    " cpu-rt-runtime:s cpuset-cpus:s cpuset-mems:s kernel-memory:s kernel-memory-tcp:s memory:s cpu-idle:s"
)
_UPDATE += " memory-reservation:s memory-swap:s pids-limit:i? l3-cache-schema:s mem-bw-schema:s"
_CRIU = (
    "image-path:s work-path:s tcp-established:b ext-unix-sk:b shell-job:b file-locks:b manage-cgroups-mode:s"
)
_CRIU += " empty-ns:l auto-dedup:b lazy-pages:b"
_SAVE = (
    " parent-path:s leave-running:b tcp-skip-in-flight:b link-remap:b status-fd:i=-1 page-server:s pre-dump:b"
)
_RESTORE = " bundle,b:s console-socket:s detach,d:b pid-file:s no-subreaper:b no-pivot:b lsm-profile:s"
_RESTORE += " lsm-mount-context:s"

Command = tuple[str, int, int, bool]

# Options; fewest and most arguments, -1 for any number; whether options end at the first argument.
COMMANDS: dict[str, Command] = {
    "checkpoint": (_CRIU + _SAVE, 1, 1, False),
    "create": (_NEW, 1, 1, False),
    "delete": ("force,f:b regex:b", 1, 1, False),
    "events": ("interval:d=5s stats:b", 1, 1, False),
    "exec": (_EXEC, 1, -1, True),
    "features": ("", 0, 0, False),
    "kill": ("all,a:b", 1, 2, False),
    "list": ("format,f:s=table quiet,q:b", 0, 0, False),
    "pause": ("", 1, 1, False),
    "ps": ("format,f:s=table", 1, -1, True),
    "restore": (_CRIU + _RESTORE, 1, 1, False),
    "resume": ("", 1, 1, False),
    "run": (_NEW + " detach,d:b keep:b no-subreaper:b", 1, 1, False),
    "spec": ("bundle,b:s rootless:b", 0, 0, False),
    "start": ("", 1, 1, False),
    "state": ("", 1, 1, False),
    "update": (_UPDATE, 1, 1, False),
}

"""Words of a command line that pyrun does not know: those of Docker, which are not there yet, and typing errors.

    VERBS    commands of Docker, management forms included -> what to do instead
    OPTIONS  command -> {options of Docker, short spelling included -> what to do instead}

A row leaves with the verb or option that lands in tables.py; tests hold both against each other and against the
`--help` of Docker's client. Cold: a command line that is right does not come here. Source: Docker 28.2.
"""

from __future__ import annotations

from pyrun.cli import tables
from pyrun.cli.options import Misread
from pyrun.errors import UsageError

# Each row is one line, however long: the table is read by column.
_ANEW = "`pyrun run` makes and starts a container in one; one that has ended is removed and run anew"
_BUILDS = "build it with `docker build` or buildah, then `docker save IMAGE | pyrun load`"
_SHELL = "`pyrun exec CONTAINER COMMAND`"
_TAR = "`pyrun exec CONTAINER tar -c PATH`, or a directory mounted with -v"
_LOGIN = "the credentials of ~/.docker/config.json, as `skopeo login` writes them, are used by `pyrun pull`"
_SKOPEO = "`skopeo copy` between registries and archives"
_INSPECT = "`pyrun ps -a --no-trunc --format=json` and `pyrun images --format=json`"
_VOLUME = "-v with a directory of the host"
_SWARM = "there are no clusters: one host, `pyrun run`"
_UNIT = "a unit of systemd with Restart=, see docs/administration.md"
_LIMITS = "limits are given at the start: `pyrun run --memory --cpus --pids-limit`"
_SIGNALS = "`pyrun kill -s STOP` and `pyrun kill -s CONT`"
_RM = "`pyrun rm $(pyrun ps -aq --filter status=exited)`"

VERBS: dict[str, str] = {
    "attach": "`pyrun logs -f CONTAINER`, or a run in the foreground",
    "build": _BUILDS, "builder": _BUILDS, "buildx": _BUILDS, "checkpoint": _ANEW,
    "commit": _BUILDS, "compose": "one `pyrun run` a service, on a network of `pyrun network create`",
    "config": _SWARM, "context": "PYRUN_ROOT and PYRUN_RUNROOT name another store", "cp": _TAR,
    "create": _ANEW, "diff": f"{_SHELL}", "events": "`pyrun ps -a`, asked again", "export": _TAR,
    "history": _SKOPEO + ", `skopeo inspect --config`",
    "import": "`pyrun load -t NAME FILE`, which takes a root file system",
    "inspect": _INSPECT, "login": _LOGIN, "logout": _LOGIN, "manifest": _SKOPEO + ", `skopeo inspect --raw`",
    "node": _SWARM, "pause": _SIGNALS, "plugin": "`pyrun network create` has the drivers there are", "push": _SKOPEO,
    "rename": "--name at the start", "restart": _ANEW, "save": _SKOPEO, "search": "the registry's own pages",
    "secret": "a file mounted with -v SECRET:/run/secrets/NAME:ro", "service": _SWARM, "stack": _SWARM,
    "start": _ANEW, "stats": "the files of its cgroup, pyrun/ID: memory.current, cpu.stat", "swarm": _SWARM,
    "tag": "`pyrun load -t NAME`, or a second `pyrun pull`", "top": f"{_SHELL}: ps",
    "trust": "digests: NAME@sha256:...",
    "unpause": _SIGNALS, "update": _LIMITS, "volume": _VOLUME,
    "wait": "`pyrun run` in the foreground, which ends with the container's status",
    "container prune": _RM, "image prune": "`pyrun rmi IMAGE`", "system prune": f"{_RM}; `pyrun network prune`",
    "system df": "`pyrun images`, and du of what `pyrun info` names as root",
}  # fmt: skip

_CPU = "--cpus limits the processor time"
_DISK = "`pyrun run --bundle` takes a config.json with linux.resources.blockIO"
_SETS = "`pyrun run --bundle` takes a config.json, which has it"
_HEALTH = "a command of `pyrun exec`, called by cron or a timer"
_KEYS = "there are no detach keys: -d at the start, and `pyrun logs -f`"
_LINK = "--network=NAME: the containers of a network find each other by name"
_WINDOWS = "it is of Windows: leave it out"
_UNIX = "leave it out: the namespace is the container's own"

OPTIONS: dict[str, dict[str, str]] = {
    "run": {
        "--annotation": "--label", "--attach -a": "-i, -t and -d say what is attached",
        "--blkio-weight": _DISK, "--blkio-weight-device": _DISK, "--cgroup-parent": _SETS, "--cgroupns": _SETS,
        "--cidfile": "`pyrun run -d` prints the id: > FILE", "--cpu-count": _WINDOWS, "--cpu-percent": _WINDOWS,
        "--cpu-period": _CPU, "--cpu-quota": _CPU, "--cpu-rt-period": _SETS, "--cpu-rt-runtime": _SETS,
        "--cpu-shares -c": _CPU, "--cpuset-cpus": "taskset within the container, or --cpus", "--cpuset-mems": _SETS,
        "--detach-keys": _KEYS, "--device": "--privileged, which has all devices, or a bundle's linux.devices",
        "--device-cgroup-rule": _SETS, "--device-read-bps": _DISK, "--device-read-iops": _DISK,
        "--device-write-bps": _DISK, "--device-write-iops": _DISK,
        "--disable-content-trust": "leave it out: names are not signed, NAME@sha256:... is sure", "--domainname": _SETS,
        "--gpus": "a bundle with the hook of nvidia-container-toolkit", "--health-cmd": _HEALTH,
        "--health-interval": _HEALTH, "--health-retries": _HEALTH, "--health-start-interval": _HEALTH,
        "--health-start-period": _HEALTH, "--health-timeout": _HEALTH, "--io-maxbandwidth": _WINDOWS,
        "--io-maxiops": _WINDOWS, "--ipc": _UNIX, "--isolation": _WINDOWS, "--kernel-memory": "--memory",
        "--label-file": "--label, once a line", "--link": _LINK, "--link-local-ip": "--ip",
        "--log-driver": "`pyrun logs`, whose files lie below what `pyrun info` names as root",
        "--log-opt": "`pyrun logs`",
        "--memory-reservation": "--memory", "--memory-swap": "--memory", "--memory-swappiness": "--memory",
        "--mount": "-v SRC:DST[:OPTIONS] for bind, --tmpfs DIR[:OPTIONS] for tmpfs",
        "--no-healthcheck": "leave it out: health is not checked",
        "--oom-kill-disable": "--memory, chosen large enough",
        "--oom-score-adj": "a bundle's process.oomScoreAdj", "--pid": _UNIX, "--restart": _UNIT,
        "--runtime": "`pyrun-oci`, where another program asks for a runtime", "--storage-opt": "--tmpfs DIR:size=64m",
        "--use-api-socket": "there is no daemon: leave it out",
        "--userns": "pyrun as an ordinary user, who has a user namespace",
        "--uts": _UNIX, "--volume-driver": _VOLUME, "--volumes-from": f"the same {_VOLUME}",
    },
    "exec": {"--detach-keys": _KEYS},
    "ps": {
        "--last -n": "`pyrun ps -a | head -n 2`: the newest come first", "--latest -l": "`pyrun ps -a | head -n 2`",
        "--size -s": "du of the container's directory below what `pyrun info` names as root",
    },
    "rm": {"--link -l": _LINK},
    "logs": {"--details": "-t shows the times"},
    "images": {
        "--all -a": "leave it out: there are no intermediate images", "--filter -f": "`pyrun images 'NAME*'`",
        "--tree": "leave it out: the list is flat",
    },
    "rmi": {"--no-prune": "leave it out: a layer another image needs stays",
    "--platform": "`pyrun rmi` with the image's id"},
    "pull": {"--all-tags -a": "one `pyrun pull` a tag",
    "--disable-content-trust": "leave it out: names are not signed"},
    "network ls": {"--filter -f": "--format=json and jq"},
    "network create": {
        "--attachable": _SWARM, "--aux-address": "--ip-range, which leaves out what is outside of it",
        "--config-from": _SWARM, "--config-only": _SWARM, "--ingress": _SWARM,
        "--ipam-driver": "--subnet and --ip-range",
        "--ipam-opt": "--subnet and --ip-range", "--ipv4": "leave it out: IPv4 is always there", "--scope": _SWARM,
    },
    "network connect": {"--driver-opt": "--ifname, --ip, --mac-address", "--link": _LINK, "--link-local-ip": "--ip"},
    "network inspect": {"--verbose -v": "leave it out: everything is shown"},
    "network prune": {"--filter": "`pyrun network rm NETWORK`"},
    "": {
        "--config": "DOCKER_CONFIG is heeded by `pyrun pull`", "--context -c": VERBS["context"],
        "-D": "--debug", "--host -H": VERBS["context"], "--log-level -l": "--debug",
        "--tls": "there is no daemon: leave it out", "--tlscacert": "there is no daemon: leave it out",
        "--tlscert": "there is no daemon: leave it out", "--tlskey": "there is no daemon: leave it out",
        "--tlsverify": "there is no daemon: leave it out",
    },
}  # fmt: skip


def verb(words: list[str]) -> UsageError:
    """The error about words that begin with no verb of ours; status 1, as Docker's."""
    if words[0][:1] == "-":
        return option("", words[0], [name for row in tables.TOP[0] for name in row[0]])
    both = " ".join(words[:2]) if words[0] in tables.GROUPS else words[0]
    # the groups container and image have what Docker has without them as well
    instead = VERBS.get(both) or VERBS.get(both.removeprefix("container ").removeprefix("image "))
    if instead:
        return UsageError(f"not there yet: {both}", f"instead: {instead}", 1)
    group = f"{words[0]} " if words[0] in tables.GROUPS else ""
    known = [*tables.VERBS, *tables.GROUPS, *tables.ALIASES, *VERBS]
    near = _near(
        words[1 if group else 0], [each.removeprefix(group) for each in known if each.startswith(group)]
    )
    see = f"did you mean {group}{near}?" if near else f"see `pyrun {group}--help`"
    return UsageError(f"unknown command '{both}'", see, 1)


def option(command: str, name: str, known: list[str], within: str = "") -> Misread:
    """The error about an option that *command* has not; known: those it has, within: the word it stands in.

    command: a key of tables.VERBS, or "" for pyrun itself.
    """
    for spellings, instead in OPTIONS.get(command, {}).items():
        if name in spellings.split():
            return Misread(f"not there yet: option {name}", f"instead: {instead}")
    near = _near(name, known) if len(name) > 2 else ""
    see = f"did you mean {near}?" if near else f"see `{f'pyrun {command}'.rstrip()} --help`"
    return Misread(f"unknown option {name}{within}", see)


def _near(word: str, words: list[str]) -> str:
    """The one of *words* that was likely meant: two letters changed places, or the beginning is right. "" if none."""
    import difflib
    from itertools import takewhile

    def alike(each: str) -> int:
        return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(each, word, strict=False))))

    near = difflib.get_close_matches(word, words, n=5)
    return min(near, key=lambda each: (sorted(each) != sorted(word), -alike(each)), default="")

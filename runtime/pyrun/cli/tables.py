"""Every verb and every option pyrun knows, as data: parsing, `--help` and the tests read the same rows.

    VERBS[verb] = (option rows, usage, summary, least arguments, most arguments (-1: any number))
    option row  = (names, kind, destination, default, metavar, help)

Kinds: `flag` (bool; `--x`, `--x=false`), `optional` (a flag that may carry a value: `--x`, `--x=json`; its
default is "", bare it is the metavar's first word in lower case), `value` (str), `int`, `list` (may be repeated).
A usage that ends in `[ARG...]` means that options stop at the first argument: what follows belongs to the
command in the container. Spelling is Docker's. Source: docs.docker.com/reference/cli/docker/container/run.
"""

from __future__ import annotations

Row = tuple[tuple[str, ...], str, str, object, str, str]
Verb = tuple[tuple[Row, ...], str, str, int, int]

# One line an option, however long: the table is read by column.
# fmt: off
# ruff: noqa: E501
_FORMAT: Row = (("--format",), "value", "format", "table", "FORMAT", "Output format: table or json (one object a line)")
_QUIET: Row = (("-q", "--quiet"), "flag", "quiet", False, "", "Show the ids alone")
_NO_TRUNC: Row = (("--no-trunc",), "flag", "no_trunc", False, "", "Do not shorten the output")

# What `run` and `exec` share.
_INTERACTIVE: Row = (("-i", "--interactive"), "flag", "interactive", False, "", "Keep the command's standard input open")
_TTY: Row = (("-t", "--tty"), "flag", "tty", False, "", "Give the command a terminal")
_DETACH: Row = (("-d", "--detach"), "flag", "detach", False, "", "Run in the background and print the container's id")
_ENV: Row = (("-e", "--env"), "list", "env", (), "NAME[=VALUE]", "Set an environment variable (without a value: as it is here, or not at all)")
_ENV_FILE: Row = (("--env-file",), "list", "env_file", (), "FILE", "Read environment variables from a file")
_WORKDIR: Row = (("-w", "--workdir"), "value", "workdir", "", "DIR", "Working directory inside the container")
_USER: Row = (("-u", "--user"), "value", "user", "", "USER[:GROUP]", "User (and group), by name or number")
_PRIVILEGED: Row = (("--privileged",), "flag", "privileged", False, "", "All capabilities and devices, no seccomp profile, no masked paths")

_THROUGH: Row = (("--publish-through-firewall",), "flag", "publish_through_firewall", False, "", "Open published ports to the outside although this host's own firewall would not let them in")

_RUN: tuple[Row, ...] = (
    (("--add-host",), "list", "add_host", (), "HOST:IP", "Add a line to /etc/hosts (host-gateway means the gateway)"),
    (("--bundle",), "value", "bundle", "", "DIR", "Run an OCI bundle instead of an image; the argument is then the container's id. config.json says everything but what -d, -i, --name (the id), --rm, --sig-proxy, --explain, --dry-run and the options of networks and ports say"),
    (("--cap-add",), "list", "cap_add", (), "CAPABILITY", "Add a capability, or ALL"),
    (("--cap-drop",), "list", "cap_drop", (), "CAPABILITY", "Drop a capability, or ALL"),
    (("--cpus",), "value", "cpus", "", "NUMBER", "Limit the processor time, for example 1.5 (0: no limit)"),
    _DETACH,
    (("--dns",), "list", "dns", (), "ADDRESS", "Where questions about outside names go instead of the host's servers"),
    (("--dns-option", "--dns-opt"), "list", "dns_option", (), "OPTION", "An option of /etc/resolv.conf"),
    (("--dns-search",), "list", "dns_search", (), "DOMAIN", "A search domain (. for none)"),
    (("--dry-run",), "flag", "dry_run", False, "", "Show what would be done; touch and pull nothing"),
    (("--egress",), "value", "egress", None, "POLICY", "What it may open connections to: none, dns, CIDR[:PORT][/PROTO], DOMAIN[:PORT], deny:CIDR, joined by commas"),
    (("--entrypoint",), "value", "entrypoint", None, "COMMAND", "Replace the image's entrypoint"),
    _ENV,
    _ENV_FILE,
    (("--explain",), "optional", "explain", "", "text|json", "Show every operation in order and how to check it"),
    (("--expose",), "list", "expose", (), "PORT[/udp]", "A port, or a range, that -P publishes"),
    (("--group-add",), "list", "group_add", (), "GROUP", "Join a further group"),
    (("-h", "--hostname"), "value", "hostname", "", "NAME", "The container's host name"),
    (("--init",), "flag", "init", False, "", "Run a small init that forwards signals and reaps processes"),
    _INTERACTIVE,
    (("--ip",), "value", "ip", "", "ADDRESS", "The IPv4 address in the first network"),
    (("--ip6",), "value", "ip6", "", "ADDRESS", "The IPv6 address in the first network"),
    (("-l", "--label"), "list", "label", (), "KEY[=VALUE]", "Attach a label"),
    (("--mac-address",), "value", "mac_address", "", "MAC", "The MAC address in the first network"),
    (("-m", "--memory"), "value", "memory", "", "SIZE", "Limit the memory: a number with b, k, m or g (0: no limit)"),
    (("--name",), "value", "name", "", "NAME", "The container's name"),
    (("--net-fault",), "value", "net_fault", "", "FAULTS", "Make what arrives slow or unsure: delay=100ms,jitter=20ms,loss=1%,duplicate=,reorder=,corrupt="),
    (("--net-rate",), "value", "net_rate", "", "RATES", "Limit what arrives and what is sent: in=10mbit,out=2mbit"),
    (("--network", "--net"), "list", "network", (), "NETWORK", "A network (again for a further one): bridge (the default), host, none, NAME[:ip=,ip6=,mac=,alias=,ifname=,gw-priority=], container:NAME, ns:NAME, l2:IFACE, macvlan:IFACE[:mode=,host-shim=on], ipvlan:IFACE[:mode=], cni:NAME; an ordinary user: pasta (the default), slirp4netns, host, none, container:NAME"),
    (("--network-alias", "--net-alias"), "list", "network_alias", (), "NAME", "A further name the other containers of the network may use"),
    (("--pids-limit",), "int", "pids_limit", 0, "NUMBER", "Limit the number of processes (0 or -1: no limit)"),
    (("--platform",), "value", "platform", "", "OS/ARCH", "The image's platform, for example linux/arm64"),
    _PRIVILEGED,
    (("-p", "--publish"), "list", "publish", (), "[[IP:]HOST:]PORT[/udp]", "Publish a port of the container on the host, or a range: 8000-8010:8000-8010; without HOST on a free one"),
    (("-P", "--publish-all"), "flag", "publish_all", False, "", "Publish what the image and --expose tell of, each on a free port"),
    _THROUGH,
    (("--pull",), "value", "pull", "missing", "POLICY", "Pull the image: always, missing or never"),
    (("-q", "--quiet"), "flag", "quiet", False, "", "No progress while the image is pulled, and no notice about --network=host"),
    (("--read-only",), "flag", "read_only", False, "", "Make the root file system read-only"),
    (("--rm",), "flag", "rm", False, "", "Remove the container when it has ended"),
    (("--security-opt",), "list", "security_opt", (), "OPTION", "One of seccomp=FILE, seccomp=unconfined, no-new-privileges, systempaths=unconfined (no path of /proc and /sys is hidden or read-only); label=... and apparmor=unconfined are taken and change nothing"),
    (("--shm-size",), "value", "shm_size", "", "SIZE", "Size of /dev/shm (64m)"),
    (("--sig-proxy",), "flag", "sig_proxy", True, "", "Forward signals to the container's process"),
    (("--stop-signal",), "value", "stop_signal", "", "SIGNAL", "The signal `stop` sends"),
    (("--stop-timeout",), "int", "stop_timeout", None, "SECONDS", "How long `stop` waits before it kills (-1: for ever)"),
    (("--sysctl",), "list", "sysctl", (), "NAME=VALUE", "Set a kernel parameter inside the container"),
    (("--tmpfs",), "list", "tmpfs", (), "DIR[:OPTIONS]", "Mount a tmpfs; OPTIONS as mount(8) has them: size=64m,mode=1777,exec"),
    _TTY,
    (("--ulimit",), "list", "ulimit", (), "NAME=SOFT[:HARD]", "Set a resource limit, for example nofile=1024"),
    _USER,
    (("-v", "--volume"), "list", "volume", (), "SRC:DST[:OPTIONS]", "Mount a directory or file of the host; OPTIONS: ro, and how mounts below it are passed on (rprivate if left out, rslave, rshared ...); DST alone: a directory of the container's own"),
    _WORKDIR,
)

_EXEC_DETACH: Row = (("-d", "--detach"), "flag", "detach", False, "", "Run the command in the background; its output goes nowhere")
_EXEC: tuple[Row, ...] = (_EXEC_DETACH, _ENV, _ENV_FILE, _INTERACTIVE, _PRIVILEGED, _TTY, _USER, _WORKDIR)

_PS: tuple[Row, ...] = (
    (("-a", "--all"), "flag", "all", False, "", "Show all containers, not only those that run"),
    (("-f", "--filter"), "list", "filter", (), "FILTER", "Show only what matches: name=, id=, status=, exited=, ancestor=, network=, publish=, before=, since= (a container) or label= (a label given again: both)"),
    _FORMAT,
    _NO_TRUNC,
    _QUIET,
)

_STOP: tuple[Row, ...] = (
    (("-s", "--signal"), "value", "signal", "", "SIGNAL", "The signal to send (the container's stop signal)"),
    (("-t", "--timeout", "--time"), "int", "timeout", None, "SECONDS", "How long to wait before SIGKILL (10; -1: for ever)"),
)

_KILL: tuple[Row, ...] = (
    (("-s", "--signal"), "value", "signal", "KILL", "SIGNAL", "The signal to send, by name or number"),
)

_RM: tuple[Row, ...] = (
    (("-f", "--force"), "flag", "force", False, "", "Kill a running container; no error if there is no such container"),
    (("-v", "--volumes"), "flag", "volumes", False, "", "Accepted for Docker's sake: anonymous volumes always go with their container"),
)

_LOGS: tuple[Row, ...] = (
    (("-f", "--follow"), "flag", "follow", False, "", "Go on as long as the container writes"),
    (("--since",), "value", "since", "", "TIME", "Only what is newer: 2026-01-31T10:00:00Z, unix seconds, or an age such as 10m"),
    (("-n", "--tail"), "value", "tail", "all", "NUMBER", "Only the last lines"),
    (("-t", "--timestamps"), "flag", "timestamps", False, "", "Begin every line with its time"),
    (("--until",), "value", "until", "", "TIME", "Only what is older"),
)

_IMAGES: tuple[Row, ...] = (
    (("--digests",), "flag", "digests", False, "", "Show what registries call them, too"),
    _FORMAT, _NO_TRUNC, _QUIET,
)

_RMI: tuple[Row, ...] = (
    (("-f", "--force"), "flag", "force", False, "", "Remove it although several names or a stopped container refer to it"),
)

_PULL: tuple[Row, ...] = (
    (("--platform",), "value", "platform", "", "OS/ARCH", "The image's platform, for example linux/arm64"),
    (("-q", "--quiet"), "flag", "quiet", False, "", "No progress"),
)

_LOAD: tuple[Row, ...] = (
    (("-i", "--input"), "value", "input", "", "FILE", "Read this file instead of standard input"),
    (("--platform",), "value", "platform", "", "OS/ARCH", "Of an archive for several platforms take this one"),
    (("-q", "--quiet"), "flag", "quiet", False, "", "Accepted for Docker's sake: a load shows no progress"),
    (("-t", "--tag"), "value", "tag", "", "NAME", "Name the image (needed for a plain root file system)"),
)

_NETWORK_CREATE: tuple[Row, ...] = (
    (("-d", "--driver"), "value", "driver", "bridge", "DRIVER", "What it is made of: bridge, macvlan, ipvlan or none"),
    (("--gateway",), "list", "gateways", (), "ADDRESS", "The gateway of a subnet (its first address)"),
    (("--icc",), "flag", "icc", True, "", "Let the containers of the network reach each other"),
    (("--internal",), "flag", "internal", False, "", "No way out, and none in"),
    (("--ip-range",), "list", "ranges", (), "CIDR", "Hand out addresses of this part of a subnet"),
    (("--ipv6",), "flag", "ipv6", False, "", "IPv6 too: a /64 of this host's own range, or the --subnet given"),
    (("--isolate",), "flag", "isolate", False, "", "Nothing from other networks, published ports neither"),
    (("--label",), "list", "label", (), "KEY[=VALUE]", "Attach a label"),
    (("--mtu",), "int", "mtu", 0, "BYTES", "The largest packet (that of the host's uplink)"),
    (("-o", "--opt"), "list", "opt", (), "KEY=VALUE", "An option of the driver. macvlan: parent=eth0, mode=bridge|private|vepa|passthru, host-shim=on (host and container reach each other); ipvlan: parent=eth0, mode=l2|l3|l3s; bridge: com.docker.network.bridge.name=pyr..., com.docker.network.bridge.enable_icc=false, com.docker.network.driver.mtu=BYTES"),
    (("--subnet",), "list", "subnets", (), "CIDR", "A subnet, IPv4 or IPv6 (a free one)"),
)

_CONNECT: tuple[Row, ...] = (
    (("--alias",), "list", "network_alias", (), "NAME", "A further name the other containers of the network may use"),
    (("--gw-priority",), "int", "gw_priority", 0, "NUMBER", "The default route goes by the network of the highest"),
    (("--ifname",), "value", "ifname", "", "NAME", "What the interface is called inside (the next ethN)"),
    (("--ip",), "value", "ip", "", "ADDRESS", "The IPv4 address"),
    (("--ip6",), "value", "ip6", "", "ADDRESS", "The IPv6 address"),
    (("--mac-address",), "value", "mac_address", "", "MAC", "The MAC address"),
)

_DISCONNECT: tuple[Row, ...] = (
    (("-f", "--force"), "flag", "force", False, "", "No error if the container is not on the network"),
)

_NETWORK_LS: tuple[Row, ...] = (
    _FORMAT,
    _NO_TRUNC,
    _QUIET,
)

_INSPECT: tuple[Row, ...] = (
    (("-f", "--format"), "value", "format", "", "FORMAT", "Output format: json (in one line)"),
)

_ADOPT: tuple[Row, ...] = (
    (("--name",), "value", "name", "", "NAME", "What the network is to be called (as the bridge)"),
)

_QUIET_RELOAD: Row = (("-q", "--quiet"), "flag", "quiet", False, "", "Say nothing when nothing was missing")
_FORCE: Row = (("-f", "--force"), "flag", "force", False, "", "Do not ask (pyrun never asks; accepted for Docker's sake)")
_PRUNE: tuple[Row, ...] = (_FORCE,)
_NETWORK_RM: tuple[Row, ...] = (
    (("-f", "--force"), "flag", "force", False, "", "No error if there is no such network"),
)

_RECONCILE: tuple[Row, ...] = (
    (("-q", "--quiet"), "flag", "quiet", False, "", "Say nothing"),
)

_PORT: tuple[Row, ...] = (
    (("--format",), "value", "format", "", "FORMAT", "Output format: table (with from where each is reachable; to a terminal), docker (its lines; elsewhere, and what is closed to the outside on standard error) or json"),
)

_REPORT: tuple[Row, ...] = (
    (("-f", "--format"), "value", "format", "text", "FORMAT", "Output format: text or json"),
)

VERBS: dict[str, Verb] = {
    "run": (_RUN, "pyrun run [OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and start a container from an image", 1, -1),
    "exec": (_EXEC, "pyrun exec [OPTIONS] CONTAINER COMMAND [ARG...]", "Run a command in a running container", 2, -1),
    "ps": (_PS, "pyrun ps [OPTIONS]", "List containers", 0, 0),
    "stop": (_STOP, "pyrun stop [OPTIONS] CONTAINER [CONTAINER...]", "Stop running containers", 1, -1),
    "kill": (_KILL, "pyrun kill [OPTIONS] CONTAINER [CONTAINER...]", "Send a signal to running containers", 1, -1),
    "rm": (_RM, "pyrun rm [OPTIONS] CONTAINER [CONTAINER...]", "Remove containers", 1, -1),
    "logs": (_LOGS, "pyrun logs [OPTIONS] CONTAINER", "Show what a container has written", 1, 1),
    "images": (_IMAGES, "pyrun images [OPTIONS] [REPOSITORY[:TAG]]", "List images", 0, 1),
    "rmi": (_RMI, "pyrun rmi [OPTIONS] IMAGE [IMAGE...]", "Remove images", 1, -1),
    "pull": (_PULL, "pyrun pull [OPTIONS] NAME[:TAG|@DIGEST]", "Fetch an image from a registry or build it from its recipe", 1, 1),
    "load": (_LOAD, "pyrun load [OPTIONS] [FILE]", "Load an image from a docker-archive, OCI layout or root file system tarball", 0, 1),
    "port": (_PORT, "pyrun port [OPTIONS] CONTAINER [PORT[/PROTOCOL]]", "List a container's published ports, and from where they are reached", 1, 2),
    "port add": ((_THROUGH,), "pyrun port add [OPTIONS] CONTAINER [[IP:]HOST:]PORT [...]", "Publish more ports of a running container", 2, -1),
    "port rm": ((), "pyrun port rm CONTAINER [IP:]HOST[/udp] [...]", "Publish ports of a running container no longer", 2, -1),
    "network ls": (_NETWORK_LS, "pyrun network ls [OPTIONS]", "List networks", 0, 0),
    "network create": (_NETWORK_CREATE, "pyrun network create [OPTIONS] NETWORK", "Make a network", 1, 1),
    "network adopt": (_ADOPT, "pyrun network adopt [OPTIONS] BRIDGE", "Make a bridge wired by hand a network, and leave who is on it in peace", 1, 1),
    "network inspect": (_INSPECT, "pyrun network inspect [OPTIONS] NETWORK [NETWORK...]", "Show everything about networks, as JSON", 1, -1),
    "network connect": (_CONNECT, "pyrun network connect [OPTIONS] NETWORK CONTAINER", "Connect a running container to a further network", 2, 2),
    "network disconnect": (_DISCONNECT, "pyrun network disconnect [OPTIONS] NETWORK CONTAINER", "Disconnect a running container from a network", 2, 2),
    "network policy": ((), "pyrun network policy CONTAINER [POLICY]", "Show or change what a container may open connections to", 1, 2),
    "network reload": ((_QUIET_RELOAD,), "pyrun network reload [OPTIONS]", "Restore what others removed: bridges, rules, settings, the resolver", 0, 0),
    "network rm": (_NETWORK_RM, "pyrun network rm [OPTIONS] NETWORK [NETWORK...]", "Remove networks", 1, -1),
    "network prune": (_PRUNE, "pyrun network prune [OPTIONS]", "Remove the networks no container uses, with their rules", 0, 0),
    "system finish": ((), "pyrun system finish FILE", "Undo what an undo list itself cannot (it is run by one)", 1, 1),
    "system reconcile": (_RECONCILE, "pyrun system reconcile [OPTIONS]", "Undo what crashed containers left behind", 0, 0),
    "info": (_REPORT, "pyrun info [OPTIONS]", "Show what this machine offers to containers", 0, 0),
    "version": (_REPORT, "pyrun version [OPTIONS]", "Show the versions of pyrun and of what it uses", 0, 0),
}

# Docker's management forms and second spellings.
ALIASES: dict[str, str] = {
    "container ls": "ps", "container ps": "ps", "container list": "ps", "container run": "run", "container exec": "exec",
    "container stop": "stop", "container kill": "kill", "container rm": "rm", "container remove": "rm", "container logs": "logs", "container port": "port",
    "image ls": "images", "image list": "images", "image rm": "rmi", "image remove": "rmi", "image pull": "pull", "image load": "load",
    "network list": "network ls", "network remove": "network rm", "system info": "info",
}

# First words that only group others.
GROUPS: dict[str, str] = {
    "container": "Manage containers", "image": "Manage images", "network": "Manage networks", "system": "Manage pyrun's own leftovers",
}

# Options before the verb. They stop at the verb.
TOP: Verb = (
    (
        (("--debug",), "flag", "debug", False, "", "Show the traceback of an error"),
        (("-v", "--version"), "flag", "version", False, "", "Show the version"),
    ),
    "pyrun [OPTIONS] COMMAND [ARG...]",
    "Run containers: plan in Python, execute in C, explain for free",
    0,
    -1,
)

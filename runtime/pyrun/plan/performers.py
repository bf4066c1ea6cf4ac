"""Who performs each kind of operation that is not init's: one static table, and the one function that goes by it.

A function is named, not imported: its module is loaded when a kind of it is first performed, so that what exists never
depends on what was imported, and a start loads what it performs. init's kinds are in csrc/ops.h and csrc/init.c. What a
kind says to a reader is plan/catalogue/, which a start that explains nothing and fails nowhere does not load.
"""

from __future__ import annotations

from sys import modules

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from typing import Any

    from pyrun.plan.operations import Operation

# Kind -> module, function. Before the operation's arguments those of the network get the link they are for
# (attach.Attachment), those of an ordinary user's network and of a process in a user namespace
# its pid.
PERFORMERS = {
    "cgroup-make": ("pyrun.cgroups.files", "make"),
    "cgroup-write": ("pyrun.cgroups.files", "write"),
    "cgroup-devices": ("pyrun.device_rules", "apply"),
    "cgroup-owner": ("pyrun.cgroups.files", "give"),
    "oom-score": ("pyrun.stages.process", "give_oom_score"),
    "rlimit": ("pyrun.stages.process", "give_limit"),
    "NETNS_NAME": ("pyrun.network.attach", "netns_name"),
    "NETNS_ENTER": ("pyrun.network.attach", "enter"),
    "VETH": ("pyrun.network.attach", "veth"),
    "IPV6": ("pyrun.network.attach", "ipv6"),
    "LINK_UP": ("pyrun.network.attach", "link_up"),
    "ADDRESS": ("pyrun.network.attach", "address"),
    "ADDRESS6": ("pyrun.network.attach", "address6"),
    "ROUTE": ("pyrun.network.attach", "route"),
    "ROUTE6": ("pyrun.network.attach", "route6"),
    "SETTLE": ("pyrun.network.attach", "settle"),
    "ANNOUNCE": ("pyrun.network.attach", "announce"),
    "RESOLVER": ("pyrun.network.attach", "names"),
    "PIN": ("pyrun.network.attach", "pin"),
    "LOCALNET": ("pyrun.network.attach", "localnet"),
    "HAIRPIN": ("pyrun.network.attach", "hairpin"),
    "PUBLISH": ("pyrun.network.attach", "publish"),
    "CLOSE": ("pyrun.network.attach", "close_port"),
    "OPEN": ("pyrun.network.attach", "open_port"),
    "COMMIT": ("pyrun.network.attach", "commit"),
    "FORGET_FLOWS": ("pyrun.network.attach", "forget_flows"),
    "EGRESS": ("pyrun.network.egress.start", "egress"),
    "APART": ("pyrun.network.egress.interfaces", "apart"),
    "RATE": ("pyrun.network.shaping", "rate"),
    "FAULT": ("pyrun.network.shaping", "fault"),
    "CARD_IPV6": ("pyrun.network.drivers.links", "ipv6"),
    "CARD_ADDRESS": ("pyrun.network.drivers.links", "address"),
    "CARD_UP": ("pyrun.network.drivers.links", "up"),
    "CARD_ROUTE": ("pyrun.network.drivers.links", "default_route"),
    "CARD_READY": ("pyrun.network.drivers.links", "ready"),
    "MACVLAN": ("pyrun.network.drivers.macvlan", "make"),
    "SHIM": ("pyrun.network.drivers.macvlan", "shim"),
    "SHIM6": ("pyrun.network.drivers.macvlan", "shim6"),
    "IPVLAN": ("pyrun.network.drivers.ipvlan", "make"),
    "SEGMENT": ("pyrun.network.drivers.l2", "make"),
    "ANSWERS": ("pyrun.network.drivers.return_routes", "lead_back"),
    "NAMES_OF": ("pyrun.network.drivers.naming", "known"),
    "NAMES_INSIDE": ("pyrun.network.drivers.naming", "answer_inside"),
    "CNI": ("pyrun.network.drivers.cni", "add"),
    "NETNS_FILE": ("pyrun.network.user_mode", "name_namespace"),
    "USER_NETWORK": ("pyrun.network.user_mode", "run"),
    "FORWARD": ("pyrun.network.user_mode.slirp", "forward"),
}


def perform(operation: Operation, *context: object) -> object:
    """Have one operation performed; what its function returns. context: what comes before the arguments."""
    module, function = PERFORMERS[operation.kind]
    performer = getattr(modules.get(module) or loaded(module), function)
    return performer(*context, *operation.args)


def loaded(module: str) -> Any:
    """The module, loaded if it is not yet."""
    return __import__(module, None, None, ("*",))


def words(operation: Operation) -> str:
    """The operation as the verb phrase of an error, `cannot ...`, as --explain has it: plan/catalogue/."""
    return str(loaded("pyrun.plan.catalogue").action(operation))

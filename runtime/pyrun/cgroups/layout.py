"""Which cgroup hierarchies this host has, and where a container's cgroup is in each.

Three kinds of host: v2 (one hierarchy, /sys/fs/cgroup), v1 (a hierarchy per controller), hybrid (v1 controllers
and a v2 without, elsewhere). What is mounted at /sys/fs/cgroup decides, as with runc. Not here: making the directories
(files.py), the systemd driver's paths (systemd.py).
Source: man 7 cgroups, man 5 proc_pid_mountinfo, runtime-spec config-linux.md#cgroups-path.
"""

from __future__ import annotations

from pyrun import launching
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from .rdt import Rdt

# A hierarchy: (its controllers joined by commas, or "unified"; its mount point; our own place below that).
Hierarchy = tuple[str, str, str]
# (controllers, directory) of a container's cgroup in one hierarchy.
Group = tuple[str, str]

_TOP = "/sys/fs/cgroup"


class Cgroup:
    """Where a container's processes belong.

    hierarchies     as `layout` has them
    groups          its directory in each; none where it is to have no cgroup
    driver          cgroupfs, systemd or disabled; unit, slice: systemd's words for it
    unprivileged    made by a user who is not the machine's root
    late            joined after the clone: systemd moves the process, or resctrl takes its pid
    parents         directories above it that are missing, the deepest first
    rdt             the resctrl group, see rdt.py; None without one
    """

    __slots__ = ("driver", "groups", "hierarchies", "late", "parents", "rdt", "slice", "unit", "unprivileged")

    def __init__(self, hierarchies: list[Hierarchy], groups: list[Group], driver: str = "cgroupfs") -> None:
        self.hierarchies = hierarchies
        self.groups = groups
        self.driver = driver
        self.unit = self.slice = ""
        self.unprivileged = self.late = False
        self.parents: list[str] = []
        self.rdt: Rdt | None = None


def layout(mountinfo: str = "", membership: str = "") -> list[Hierarchy]:
    """The cgroup hierarchies mounted here. Beside a v2 that has the controllers v1 is left out: one without any, and
    where v2 is at its usual place also somebody's net_cls.

    Read until each is found: a thousand named network namespaces are a thousand mounts more.
    """
    mounts = mountinfo.split("\n") if mountinfo else paths.lines("/proc/self/mountinfo")
    own = places(
        membership or paths.read(f"{launching.process.place()}/cgroup").decode("utf-8", "surrogateescape")
    )
    found: list[Hierarchy] = []
    seen = set()
    for line in mounts:
        if " - cgroup" not in line:
            continue
        left, _, right = line.partition(" - ")
        fields, options = left.split(" "), right.split(" ")
        names = "unified" if options[0] == "cgroup2" else _own_key(own, options[-1])
        # root of the mount other than / : somebody's bind mount of a part of the hierarchy
        if names in own and names not in seen and fields[3] in ("/", own[names]):
            seen.add(names)
            found.append((names, fields[4], own[names] if fields[3] == "/" else "/"))
            if len(seen) == len(own):
                break
    unified = [each for each in found if each[0] == "unified"]
    named = [each for each in found if each[0].startswith("name=")]
    alone = len(unified) + len(named) == len(found)
    return unified if unified and (alone or unified[0][1] == _TOP) else found


def places(membership: str) -> dict[str, str]:
    """The lines of /proc/PID/cgroup: controllers (or "unified") -> place. One outside our namespace's root is /."""
    own = {}
    for line in membership.split("\n"):
        if line:
            _, names, place = line.split(":", 2)
            own[names or "unified"] = "/" if place.startswith("/..") else place
    return own


def _own_key(own: dict[str, str], super_options: str) -> str:
    """Which line of /proc/self/cgroup belongs to a v1 mount: its controllers are among the super options."""
    words = super_options.split(",")
    for names in own:
        if names != "unified" and all(name in words for name in names.split(",")):
            return names
    return ""


def is_v2(hierarchies: list[Hierarchy]) -> bool:
    """Whether the controllers are in the unified hierarchy."""
    return len(hierarchies) == 1 and hierarchies[0][0] == "unified"


def directories(hierarchies: list[Hierarchy], path: str) -> list[Group]:
    """(controllers, directory) of the cgroup *path* in each hierarchy.

    A relative path is taken as runc does: v1, below our own cgroup; v2, beside it, for a cgroup that has processes
    cannot have children with controllers.
    """
    if path[:1] == "/":
        return [(names, mount + "/" + path.strip("/")) for names, mount, _ in hierarchies]
    beside = is_v2(hierarchies)
    found = []
    for names, mount, own in hierarchies:
        start = own.rstrip("/").rpartition("/")[0] if beside else own.rstrip("/")
        found.append((names, f"{mount}{start}/{path.strip('/')}"))
    return found

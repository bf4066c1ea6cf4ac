"""The root file system: what it is made of, its devices, what is hidden, and the pivot into it.

The order is the kernel's: propagation first (a shared parent forbids pivot_root), then a mount of its own for
the root, mounts in the config's order (stages/mounts.py), device nodes, masks over what is mounted, pivot, read-only
last. Without a mount namespace nothing that is the host's changes: the root is a mount in the run directory, which the
undo list takes away with all below it, and chroot goes into it. Paths of the container are resolved by init below the
root's descriptor (csrc/init_rootfs.c).
Source: runtime-spec config-linux.md#devices, #rootfs-mount-propagation, #masked-paths; man 2 pivot_root.
Next: stages/mounts.py.
"""

from __future__ import annotations

import posix

from pyrun import linux
from pyrun.plan.operations import Operation, descriptor
from pyrun.spec import defaults
from pyrun.spec.values import linux_section, normal_path
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Device

# linux.rootfsPropagation: (what becomes of the host's mounts in the new namespace, what the root is in the end).
# With "shared" they stay what they are, so that a volume can be shared with the host: then only the mount that holds
# the root must not tell the host of what is mounted on it.
_SPREADING = {
    "": (linux.MS_SLAVE, 0), "slave": (linux.MS_SLAVE, 0), "private": (linux.MS_PRIVATE, 0),
    "unbindable": (linux.MS_PRIVATE, linux.MS_UNBINDABLE), "shared": (0, linux.MS_SHARED),
}  # fmt: skip


# As Docker has it in every container, for programs that ask there what is mounted; an image's own stays.
_MTAB = Operation("SYMLINK", "/etc/mtab", "/proc/mounts")

# Bits of ROOT_OVERLAY and of a descriptor's "tree": see csrc/ops.h.
_USER, _TREE = 2, 1


def _spreading(config: Config) -> tuple[int, int, int]:
    """(of the host's mounts, of the root in the end, whether that goes for all below it: runc takes `rshared`, too)"""
    word = str(linux_section(config).get("rootfsPropagation") or "")
    recursive = word[:1] == "r"
    return (*_SPREADING[word[1:] if recursive else word], int(recursive))


def chroot_place(run_dir: str, kinds: list[str]) -> str:
    """Where the root is mounted if the container's mount namespace is the caller's, or nothing."""
    return "" if "mount" in kinds else f"{run_dir}/rootfs"


def undo(job: Job) -> list[str]:
    """What outlives the container's namespaces: mounts made in one of the caller's."""
    return [f"umount\t{job.chroot}"] if job.chroot else []


def plan_root(config: Config, job: Job) -> list[Operation]:
    """Our copies of the host's mounts stop telling the host anything, then the root is mounted."""
    if job.chroot:
        return [Operation("ROOT_SHOWN", job.root, job.chroot)]
    layers = job.layers
    directory = job.root if layers is None else f"{job.keep}/rootfs"
    spread = _spreading(config)[0]
    operations = [Operation("PROPAGATION", spread)] if spread else []
    if not spread:
        # / too where the root is going to be moved onto it: it would be moved onto the host's
        holders = [directory, "/"] if job.no_pivot else [directory]
        operations += [Operation("ROOT_PARENT", each, linux.MS_PRIVATE) for each in holders]
    if layers is not None and not job.fuse:
        keep, discard = job.keep, int(job.rm)
        # volatile: no sync at the end; only for what is thrown away anyway
        how = discard | (_USER if job.rootless_engine else 0)
        overlay = Operation("ROOT_OVERLAY", directory, f"{keep}/upper", f"{keep}/work", how, *layers)
        return [*operations, overlay, _MTAB]
    passed = []
    if job.user_namespace and not job.rootless:
        passed.append(descriptor(job, "tree", directory, _TREE, "/"))
    return [*operations, Operation("ROOT_BIND", directory, *passed), *([] if layers is None else [_MTAB])]


def _bound_dev(config: Config) -> bool:
    """Whether /dev is a bind mount of some directory: then what is in it is not ours to change."""
    for mount in config.get("mounts") or ():
        words = mount.get("options") or []
        if normal_path(mount["destination"]) == "/dev":
            return mount.get("type") == "bind" or "bind" in words or "rbind" in words
    return False


def plan_devices(config: Config) -> list[Operation]:
    """The nodes of /dev that every container has, those of the config, and the links beside them.

    Where nodes cannot be made (a user namespace), init shows the host's: that of a default device under its own name,
    any other under the path the config gives it.
    """
    bound = _bound_dev(config)
    given = [
        device
        for device in linux_section(config).get("devices") or ()
        if normal_path(device["path"]) != "/dev/ptmx" and not (bound and device["path"][:5] == "/dev/")
    ]
    operations = []
    taken = {device["path"] for device in given} | _mounted_on(config)
    for path, kind, major, minor, mode in () if bound else defaults.DEVICES:
        if path not in taken:
            operations.append(Operation("DEVICE", path, _KINDS[kind] | mode, major, minor, 0, 0, path))
    for device in given:
        operations.append(_device(device))
    for link, target in () if bound else defaults.DEV_LINKS:
        if link == "/dev/ptmx":  # in the place of a node that an image may have there
            operations.append(Operation("SYMLINK", link, target, 1))
        elif link != "/dev/core" or paths.exists("/proc/kcore"):
            operations.append(Operation("SYMLINK", link, target))
    return operations


def _mounted_on(config: Config) -> set[str]:
    """Destinations of mounts: what is there already is the caller's wish, as with runc."""
    mounts = config.get("mounts")
    return {mount["destination"] for mount in mounts} if isinstance(mounts, list) else set()


def _device(device: Device) -> Operation:
    """An entry of linux.devices."""
    path, kind = device["path"], device["type"]
    mode = device.get("fileMode")
    major, minor = device.get("major") or 0, device.get("minor") or 0
    host = path
    for usual, letter, *number, _ in defaults.DEVICES:
        if [major, minor] == number and _KINDS[letter] == _KINDS[kind]:
            host = usual
    owner = (device.get("uid") or 0, device.get("gid") or 0)
    bits = _KINDS[kind] | (0o666 if mode is None else mode) & 0o7777
    return Operation("DEVICE", path, bits, major, minor, *owner, *([] if kind == "p" else [host]))


_KINDS = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


def host_devices(directory: str = "/dev") -> list[Device]:
    """Every device node of the host, as linux.devices: what --privileged gives. pts and shm are the container's own."""
    found: list[Device] = []
    for entry in posix.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"):
                found += host_devices(entry.path)
            continue
        status = entry.stat(follow_symlinks=False)
        kind = status.st_mode & 0o170000
        if entry.name in ("console", "ptmx") or kind not in (0o020000, 0o060000):
            continue
        found.append(
            {
                "path": entry.path,
                "type": "c" if kind == 0o020000 else "b",
                "major": posix.major(status.st_rdev),
                "minor": posix.minor(status.st_rdev),
                "fileMode": status.st_mode & 0o7777,
                "uid": status.st_uid,
                "gid": status.st_gid,
            }
        )
    return found


def plan_hidden(config: Config) -> list[Operation]:
    """Masked and read-only paths: over the mounts that hold them."""
    section = linux_section(config)
    masked, readonly = section.get("maskedPaths") or [], section.get("readonlyPaths") or []
    data = [f"context={section['mountLabel']}"] if section.get("mountLabel") else []
    # each once, whatever the list says; in its shortest form, by which init finds the mount that holds it
    return [
        *[Operation("MASK", path, *data) for path in dict.fromkeys(map(normal_path, masked))],
        *[Operation("READONLY", path) for path in dict.fromkeys(map(normal_path, readonly))],
    ]


def kept(config: Config, job: Job) -> list[str]:
    """Those of the container's volumes that another mount is going to cover, to be shown over it again."""
    sources = {mount["source"] for mount in config["mounts"]} if job.volumes else set()
    return [path for path in job.volumes if f"{config['root']['path']}{path}" in sources]


def plan_volumes(config: Config, job: Job, kept: list[str]) -> list[Operation]:
    """Directories of the container's own: made if need be, and writable under a read-only root. Before anything is
    mounted, so that they are the root's. kept: see there."""
    writable = sorted({*job.volumes} - {*kept}) if config["root"].get("readonly") else []
    return [
        *[Operation("DIRECTORY", path, 0o755, 0, 0) for path in job.volumes],
        *[Operation("KEEP", path) for path in kept],
        *[Operation("WRITABLE", path) for path in writable],
    ]


def plan_pivot(config: Config, job: Job, late: list[str]) -> list[Operation]:
    """Into the new root; read-only if wanted, now that nothing has to be made in it any more. late: mounts that turn
    read-only as well (mounts.plan)."""
    spread, final, recursive = _spreading(config)
    # before the pivot: until then init opens them from the mounts themselves
    operations = [Operation("ATTRIBUTES", target, linux.MOUNT_ATTR_RDONLY, 0, 0, 0) for target in late]
    if job.chroot:
        operations.append(Operation("CHROOT", job.chroot))
    elif job.no_pivot:
        hidden = _full_pseudo_mounts(job.root or job.keep)
        operations.append(Operation("ROOT_MOVE", *hidden))
    else:
        operations.append(Operation("PIVOT", *([] if spread else [1])))
    if final:
        operations.append(Operation("ATTRIBUTES", "/", 0, 0, recursive, final))
    if config["root"].get("readonly"):
        operations.append(Operation("ROOT_READONLY"))
    return operations


def _full_pseudo_mounts(root: str, mountinfo: str = "") -> list[str]:
    """Where the host has a whole proc or sysfs. Without pivot_root they would stay, and with one of them in sight the
    kernel lets the container mount another without the masks. Source: runc's msMoveRoot, man 5 proc_pid_mountinfo."""
    text = mountinfo or paths.read("/proc/self/mountinfo").decode("utf-8", "surrogateescape")
    found = []
    for line in text.split("\n"):
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if right.split(" ")[0] in ("proc", "sysfs") and fields[3] == "/":
            place = fields[4]
            for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                place = place.replace(code, letter)
            if place != root and not place.startswith(root + "/"):
                found.append(place)
    return found

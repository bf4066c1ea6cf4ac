"""Mounts: the entries of `mounts` in their order, each as operations for init.

A file system is mounted fresh; a bind mount shows a part of the host's tree; `cgroup` is the container's own cgroup.
In a user namespace init may not be able to reach a source: then the planner opens it too and passes it (job
"user_namespace"), unless it has no more rights than init (job "rootless"). Options are read by spec/mount_options.py.
Source: runtime-spec config.md#mounts, config-linux.md#default-filesystems; man 2 mount_setattr.
Next: stages/network.py.
"""

from __future__ import annotations

from pyrun import linux
from pyrun.errors import UsageError
from pyrun.plan.operations import Operation, descriptor
from pyrun.spec import mount_options as options
from pyrun.spec.values import linux_section, normal_path
from pyrun.store import paths

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.plan.job import Job
    from pyrun.spec.oci import Config, Mount

# How BIND binds, see csrc/ops.h.
TREE, PASSED, LOCKED, OWNERS_TREE = 1, 2, 4, 8
# They take no SELinux label as an option: proc and sysfs have their own, mqueue gets it as an attribute, and that of
# a cgroup is the host's.
_UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")


def plan(config: Config, job: Job, kept: list[str]) -> tuple[list[Operation], list[str]]:
    """(linux and volume mounts, in the order of the config; what turns read-only when all is in its place, since other
    mounts may want a directory made there). kept: of the root, shown again over what covers it (rootfs.kept)."""
    operations: list[Operation] = []
    late: list[str] = []
    label = label_of(config)
    for number, mount in enumerate(config.get("mounts") or ()):
        asked = options.parse(mount.get("options") or [])
        kind = mount.get("type") or "none"
        bind = asked.bind or kind == "bind"
        path = f"config.json: mounts[{number}]"
        target = place(mount["destination"], job)
        options.check_target(target, kind, bind=bind, path=path)
        if target == "/" and (asked.remount or asked.old):
            raise UsageError(f"{path}.destination: the root itself cannot be mounted so", "see root.path")
        if asked.remount:
            operations.append(_remount(target, asked, bind=bind))
        elif bind and target in kept:
            operations.append(Operation("SHOW_KEPT", target))
        elif bind:
            operations.append(_bind(config, job, mount, target, asked))
        elif kind == "cgroup":
            operations += cgroup_view(job, target, asked)
        else:
            operations += _file_system(mount, kind, target, asked, label, late)
    return operations, late


def place(destination: str, job: Job) -> str:
    """The destination as a path of the container; one that names it by way of the host is taken as runc takes it."""
    target = normal_path(destination)
    root = job.root
    return target[len(root) :] if root and target.startswith(root + "/") else target


def label_of(config: Config, enforce: str = "/sys/fs/selinux/enforce") -> str:
    """linux.mountLabel, if there is SELinux to understand it. Raises UsageError."""
    label = linux_section(config).get("mountLabel")
    if not label:
        return ""
    if not paths.exists(enforce):
        raise UsageError("config.json: linux.mountLabel: SELinux is not enabled on this host", "remove it")
    return str(label)


def _spread(target: str, asked: options.Options) -> list[Operation]:
    return [
        Operation("ATTRIBUTES", target, 0, 0, int(bool(flag & linux.MS_REC)), flag & ~linux.MS_REC)
        for flag in asked.propagation
    ]


def _file_system(
    mount: Mount, kind: str, target: str, asked: options.Options, label: str, late: list[str]
) -> list[Operation]:
    """A fresh mount: of a device, or of one of the kernel's own file systems."""
    source = mount.get("source") or kind
    attributes = asked.set & ~asked.tree_named | asked.tree_set  # nothing is below it yet
    data = list(asked.data)
    if label and kind not in _UNLABELLED:
        data.append(f"context={label}")
    if attributes & options.RDONLY and (kind == "tmpfs" or target == "/dev"):
        attributes &= ~options.RDONLY
        late.append(target)
    elif attributes & options.RDONLY and source[:1] == "/":
        data.append("ro")  # a device that cannot be written to is not even opened without
    if asked.copy_up and kind == "tmpfs":
        made = Operation("TMPFS_COPY", target, attributes, *data)
    elif asked.old:
        plain = [item for item in data if item not in options.SUPERBLOCK and item != "ro"]
        made = Operation("MOUNT_OLD", target, kind, source, _old_flags(asked, attributes), *plain)
    else:
        made = Operation("MOUNT", target, kind, source, attributes, *data)
    labelled = [Operation("MOUNT_LABEL", target, label)] if label and kind == "mqueue" else []
    return [made, *labelled, *_spread(target, asked)]


# MOUNT_ATTR_* as mount(2) has them, where they differ.
_OLD_FLAGS = (
    (options.RDONLY, 1), (options.NOSUID, 2), (options.NODEV, 4), (options.NOEXEC, 8), (options.NOATIME, 1 << 10),
    (options.STRICTATIME, 1 << 24), (options.NODIRATIME, 1 << 11), (options.NOSYMFOLLOW, 1 << 8),
)  # fmt: skip


def _old_flags(asked: options.Options, attributes: int) -> int:
    return asked.flags | sum([flag for bit, flag in _OLD_FLAGS if attributes & bit])


def _remount(target: str, asked: options.Options, *, bind: bool) -> Operation:
    """Of a bind mount only the mount is changed, else its file system with it."""
    data = [] if bind else list(asked.data)
    if not bind and asked.named & options.RDONLY:
        data.append("ro" if asked.set & options.RDONLY else "rw")
    return Operation("REMOUNT", target, asked.set, asked.cleared(), *data)


def _bind(config: Config, job: Job, mount: Mount, target: str, asked: options.Options) -> Operation:
    """A part of the host's tree; id-mapped by init, or where it has not the rights by the planner."""
    source = mount["source"]
    if source[:1] != "/":
        source = f"{job.bundle}/{source}"
    how = TREE if asked.tree else 0
    owners = _owners(config, mount, asked)
    passed = mapping = -1
    if owners and job.rootless:
        raise UsageError(f"the mount on {target}: id-mapped mounts can be made by root only")
    if owners and asked.owners == "ridmap":
        how |= OWNERS_TREE
    if job.user_namespace and not job.rootless:
        how |= LOCKED | (PASSED if owners else 0)
        passed = descriptor(job, "tree", source, how, target, *owners)
    elif owners:
        mapping = descriptor(job, "idmap", target, *owners)
    # as PROPAGATION makes the host's mounts for a container with a mount namespace
    slave = [linux.MS_SLAVE | linux.MS_REC] if job.chroot else []
    first, *more = [*slave, *asked.propagation] or [0]
    arguments = [
        asked.set, how, first, asked.cleared(), asked.named | (options.NOSYMFOLLOW if asked.named else 0), passed,
        mapping, asked.tree_set, asked.tree_named, *more,
    ]  # fmt: skip
    if not more:
        while len(arguments) > 3 and arguments[-1] == _WITHOUT[len(arguments)]:
            arguments.pop()
    return Operation("BIND", target, source, *arguments)


# Arguments that may be left out, by how many there are with it: what they are then (clear named fd userns-fd tree...).
_WITHOUT = {4: 0, 5: 0, 6: -1, 7: -1, 8: 0, 9: 0}


def _owners(config: Config, mount: Mount, asked: options.Options) -> tuple[str, ...]:
    """Whose files they shall be: (uid map, gid map), or (path of a user namespace,), or nothing."""
    if mount.get("uidMappings") or mount.get("gidMappings"):
        return options.map_text(mount.get("uidMappings")), options.map_text(mount.get("gidMappings"))
    if not asked.owners:
        return ()
    section = linux_section(config)
    for item in section.get("namespaces") or []:
        if item["type"] == "user" and item.get("path"):
            return (item["path"],)
    return options.map_text(section.get("uidMappings")), options.map_text(section.get("gidMappings"))


def cgroup_view(job: Job, target: str, asked: options.Options) -> list[Operation]:
    """Mounts for a config's mount of type cgroup: the container's own cgroup as the root of everything.

    v2: one mount, which begins at the cgroup namespace's root. v1: a tmpfs, below it each hierarchy's directory (a
    fresh mount would show the host's tree where there is no cgroup namespace), and links for names that share one.
    Without a cgroup namespace, who is not the host's root gets it read-only: it is the host's (CVE-2023-25809).
    Source: runtime-spec config-linux.md#default-filesystems, man 7 cgroup_namespaces.
    """
    hierarchies, groups = job.cgroup.hierarchies, job.cgroup.groups
    attributes = asked.set
    own = "cgroup" in job.namespaces
    if not own and (job.rootless or job.user_namespace):
        attributes |= options.RDONLY
    if not hierarchies or not groups:
        return [Operation("MOUNT", target, "tmpfs", "tmpfs", attributes | options.RDONLY, "mode=755")]
    if len(hierarchies) == 1 and hierarchies[0][0] == "unified":
        shown = groups[0][1] if own else hierarchies[0][1]
        return [Operation("CGROUP2", target, shown, attributes), *_spread(target, asked)]
    operations = [
        Operation("MOUNT", target, "tmpfs", "tmpfs", attributes & ~options.RDONLY, "mode=755"),
        *_spread(target, asked),
    ]
    mounted = {names: mount for names, mount, _ in hierarchies}
    for names, directory in groups:
        if names not in mounted:
            continue
        shown = f"{target}/{mounted[names].rpartition('/')[2]}"
        operations.append(Operation("BIND", shown, directory, attributes, 0, linux.MS_PRIVATE))
        for name in names.split(",") if "," in names else []:
            operations.append(Operation("SYMLINK", f"{target}/{name}", shown.rpartition("/")[2]))
    if attributes & options.RDONLY:
        operations.append(Operation("ATTRIBUTES", target, options.RDONLY, 0, 0, 0))
    return operations

"""What a start or an exec is about beside its config: the values that stages plan by, and launch.py goes by.

The engine fills them in before anything is planned. Only two are filled by planning: `descriptors`, which stages append
to (operations.descriptor), and `preserved`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.cgroups.layout import Cgroup


class Job:
    """One start, or with `entering` one exec.

    The container:
        id, name, reference    reference: what the user calls it
        run_dir, keep          its run directory and the one that lasts; of a bundle that is the bundle
        bundle                 its directory; "" for an image's container
        root                   the directory that is the root; "" where layers are
        chroot                 where that is mounted if the mount namespace is the caller's; "" else
        layers                 the image's, the top one first; None for a bundle
        volumes                directories of an image's container that are its own
        cgroup                 where its processes belong
    What kind of start:
        oci                    in runc's words
        entering, pid          an exec; pid: of the container's init
        rm, reaper             --rm: nothing is synced; --init
        rootless               by a user who is not even root of a user namespace of pyrun's
        rootless_engine        by root of that; fuse: the root is mounted by fuse-overlayfs
        no_pivot, no_new_keyring   runc's options; keyring: the container's, by name
        notify                 NOTIFY_SOCKET is to be forwarded
    Namespaces:
        namespaces, made       their types; those that are new
        user_namespace         one of them is; on_host: the network namespace that is joined is the host's
        loopback               lo is for init to bring up
        birth                  the command is born in a pid namespace that exists, at the end of the plan
        early                  init waits at its very beginning: for that, or for the maps of its user namespace
    The process:
        seccomp                (descriptor, flags) of its filter; no_seccomp: an exec is to have none
        window, plain_lines    (rows, columns) of its terminal; it adds no carriage returns
        preserve               how many of the caller's descriptors, from 3 on, it inherits
        start_fd, start_early  where `create` waits for `start`, or -1; with all privileges, since the filter to come
                               forbids to wait
    Of planning:
        descriptors            (kind, arguments) of what the planner opens for init, from FIRST_PASSED on
        preserved              (our descriptor, its number in init)
    """

    __slots__ = (
        "birth", "bundle", "cgroup", "chroot", "descriptors", "early", "entering", "fuse", "id", "keep",
        "keyring", "layers", "loopback", "made", "name", "namespaces", "no_new_keyring", "no_pivot", "no_seccomp",
        "notify", "oci", "on_host", "pid", "plain_lines", "preserve", "preserved", "reaper", "reference", "rm",
        "root", "rootless", "rootless_engine", "run_dir", "seccomp", "start_early", "start_fd", "user_namespace",
        "volumes", "window",
    )  # fmt: skip

    def __init__(self, identifier: str, name: str, cgroup: Cgroup) -> None:
        self.id = identifier
        self.name = self.reference = name
        self.cgroup = cgroup
        self.run_dir = self.keep = self.bundle = self.root = self.chroot = self.keyring = ""
        self.layers: list[str] | None = None
        self.volumes: list[str] = []
        self.namespaces: list[str] = []
        self.made: list[str] = []
        self.birth = self.early = self.entering = self.fuse = self.loopback = self.on_host = False
        self.no_new_keyring = self.no_pivot = self.no_seccomp = self.notify = self.oci = self.plain_lines = (
            False
        )
        self.reaper = self.rm = self.rootless = self.rootless_engine = self.start_early = False
        self.user_namespace = False
        self.pid = self.start_fd = -1
        self.preserve = 0
        self.seccomp: tuple[int, int] | None = None
        self.window = (0, 0)
        self.descriptors: list[tuple[str, tuple[str | int, ...]]] = []
        self.preserved: list[tuple[int, int]] = []

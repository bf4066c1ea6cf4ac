"""A container of the guest's tests: oci.box.Box with a cgroup driver, and for an ordinary user too.

With the driver `systemd` the cgroup is a scope in a slice of the tests' own; `show` says what systemd knows of it.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from pathlib import Path

from oci import runtime as runtimes
from oci.box import TIMEOUT_S, Box
from waiting import until

TOP = Path("/sys/fs/cgroup")
SLICE = "guest.slice"


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who calls the runtime: uid 0, or a user with a home directory and sub-ids from *first* on."""

    uid: int
    home: str
    first: int = 0

    def words(self, *words: str) -> list[str]:
        """The command line that runs *words* as this user, in the user's session of systemd."""
        if not self.uid:
            return [*words]
        runtime = f"/run/user/{self.uid}"
        environment = [f"HOME={self.home}", f"XDG_RUNTIME_DIR={runtime}",
                       f"DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus"]  # fmt: skip
        ids = [f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return ["setpriv", *ids, "--", "env", *environment, *words]

    def call(self, *words: str, timeout_s: float = TIMEOUT_S) -> str:
        """What a command of this user's prints; the test fails unless it ends with 0."""
        done = subprocess.run(self.words(*words), capture_output=True, text=True, timeout=timeout_s,
                              stdin=subprocess.DEVNULL, cwd="/", check=False)  # fmt: skip
        assert done.returncode == 0, (
            f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout.removesuffix("\n")


@dataclasses.dataclass(frozen=True)
class OwnersRuntime(runtimes.Runtime):
    """A runtime as *owner* calls it, with these options before the verb."""

    owner: Owner = Owner(0, "")
    options: tuple[str, ...] = ()

    def command(self, root: Path, words: tuple[str, ...], globals_: tuple[str, ...] = ()) -> list[str]:
        return self.owner.words(*super().command(root, words, (*self.options, *globals_)))


class Container(Box):
    """See above."""

    def __init__(self, runtime: runtimes.Runtime, work: Path, name: str, driver: str, owner: Owner) -> None:
        options = ("--systemd-cgroup",) if driver == "systemd" else ()
        known = OwnersRuntime(**dataclasses.asdict(runtime), owner=owner, options=options)
        super().__init__(known, work / name, work / "template", name)
        self.driver, self.owner = driver, owner
        if driver == "systemd":
            self.linux["cgroupsPath"] = f"{SLICE}:guest:{name}"
        if owner.uid:
            self.give(owner)

    def give(self, owner: Owner) -> None:
        """To a user: the files, and a user namespace in which root is that user and the rest are sub-ids."""
        self.namespace("user")
        for key in ("uidMappings", "gidMappings"):
            self.linux[key] = [{"containerID": 0, "hostID": owner.uid, "size": 1},
                               {"containerID": 1, "hostID": owner.first, "size": 65536}]  # fmt: skip
        paths = [self.directory, self.bundle, self.rootfs, *self.rootfs.iterdir()]
        subprocess.run(["chown", "-h", f"{owner.uid}:{owner.uid}", *map(str, paths)], check=True)

    @property
    def unit(self) -> str:
        return f"guest-{self.id}.scope"

    @property
    def place(self) -> Path:
        """The cgroup, by what the kernel says of the container's first process."""
        (line,) = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        return TOP / line.removeprefix("0::/")

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the scope as systemd has them."""
        words = ["systemctl", *(["--user"] if self.owner.uid else []), "show", self.unit]
        printed = self.owner.call(*words, *[f"--property={name}" for name in names])
        return dict(line.split("=", 1) for line in printed.splitlines())

    def read(self, *names: str) -> list[str]:
        """Files of the cgroup."""
        return [(self.place / name).read_text().strip() for name in names]

    def forget(self, place: Path) -> None:
        """`delete`: nothing is left of the cgroup at *place*, nor of its unit."""
        self.ok("delete", self.id)
        assert not place.exists()
        if self.driver == "systemd":
            until(lambda: self.show("LoadState")["LoadState"] == "not-found", "the end of the unit")

    def pids(self, options: Sequence[str] = ("-f", "json")) -> list[int]:
        """What `ps` prints."""
        return [int(each) for each in self.ok("ps", *options, self.id).strip("[]\n").split(",")]

"""`box`: the bundle of one test and the container made from it.

`box.config` is edited freely until the container is made; it starts as what `spec` writes, without a terminal.
The root is a busybox with a few directories; it lies on a tmpfs of the test session. Every container is in the cgroup
/conformance/ID of each hierarchy. What the container writes to its standard output is `box.output()`.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from oci.runtime import Runtime
from waiting import PATIENCE, until

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SPEC_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
CGROUP_PARENT = "conformance"
# on an emulated machine everything takes ten times as long
TIMEOUT_S = 30.0 * PATIENCE

BASE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": ["true"],
        "env": [PATH, "TERM=xterm"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), SPEC_CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs", "readonly": False},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                        "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}  # fmt: skip


class Done(NamedTuple):
    """A finished call of a runtime."""

    status: int
    out: str
    err: str


def make_root(path: Path, busybox: str) -> None:
    """A root file system: busybox under every name it has, and the usual directories."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "mnt", "data", "run"):
        (path / name).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(busybox, path / "bin/busybox")
    (path / "bin/busybox").chmod(0o755)
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (path / "bin" / name).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/data:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")


class Box:
    """See above. Every call ends within *timeout_s* seconds or fails the test."""

    def __init__(self, runtime: Runtime, directory: Path, root_template: Path, name: str) -> None:
        self.runtime = runtime
        self.directory = directory
        self.root = directory / "state"
        self.bundle = directory / "bundle"
        self.rootfs = self.bundle / "rootfs"
        self.id = name
        self.bundle.mkdir(parents=True)
        self.rootfs.mkdir()
        for path in root_template.iterdir():  # every applet is a link: one real directory with links to share
            if path.name == "bin":
                subprocess.run(["cp", "-al", str(path), str(self.rootfs / "bin")], check=True)
            else:
                shutil.copytree(path, self.rootfs / path.name, symlinks=True)
        self.config = copy.deepcopy(BASE)
        self.config["linux"]["cgroupsPath"] = f"/{CGROUP_PARENT}/{name}"
        self.started: list[subprocess.Popen[bytes]] = []
        self.ids = {name}
        self._calls = 0

    # ── the configuration ──────────────────────────────────────────────────────────────────────────

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]

    @property
    def resources(self) -> dict[str, Any]:
        return self.config["linux"]["resources"]

    def mount(self, destination: str, kind: str, source: str | Path, *options: str, **fields: object) -> None:
        """Add an entry to `mounts`."""
        self.config["mounts"].append(
            {"destination": destination, "type": kind, "source": str(source), "options": [*options], **fields}
        )

    def bind(self, destination: str, source: str | Path, *options: str) -> None:
        """Add a bind mount; with `rbind` among the options a recursive one."""
        how = () if "rbind" in options else ("bind",)
        self.mount(destination, "bind", source, *how, *options)

    def namespace(self, kind: str, path: str | Path | None = None) -> None:
        """Set the entry of this namespace: a new one, or the one at *path*."""
        entry = {"type": kind} | ({"path": str(path)} if path else {})
        self.linux["namespaces"] = [
            each for each in self.linux["namespaces"] if each["type"] != kind
        ] + [entry]  # fmt: skip

    def without_namespace(self, kind: str) -> None:
        """Take the entry of this namespace away."""
        self.linux["namespaces"] = [each for each in self.linux["namespaces"] if each["type"] != kind]

    def capabilities(self, *names: str) -> None:
        """Set the bounding, permitted and effective sets."""
        for kind in ("bounding", "permitted", "effective"):
            self.process["capabilities"][kind] = [*names]

    def map_ids(self, host_id: int = 100000, size: int = 65536) -> None:
        """A new user namespace with one range of ids; the root file system belongs to its root."""
        self.namespace("user")
        for kind in ("uidMappings", "gidMappings"):
            self.linux[kind] = [{"containerID": 0, "hostID": host_id, "size": size}]
        subprocess.run(["chown", "-hR", f"{host_id}:{host_id}", *self._own_paths()], check=True)

    def _own_paths(self) -> list[str]:
        # bin's files are shared with other boxes through links: they stay root's
        return [str(self.rootfs), *(str(path) for path in self.rootfs.iterdir() if path.name != "bin")][1:]

    def script(self, name: str, text: str) -> Path:
        """An executable of the host, beside the bundle."""
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def write(self, *args: str) -> None:
        """Write config.json, with *args* as the program when there are any."""
        if args:
            self.process["args"] = [*args]
        (self.bundle / "config.json").write_text(json.dumps(self.config, indent=1))

    # ── calls ──────────────────────────────────────────────────────────────────────────────────────

    def call(self, *words: str, globals_: Sequence[str] = (), env: Mapping[str, str] | None = None,
             input: str | None = None, pass_fds: Sequence[int] = (), cwd: str | Path | None = None,
             timeout_s: float = TIMEOUT_S, prefix: Sequence[str] = ()) -> Done:  # fmt: skip
        """Run the runtime; its output goes to files, since a detached container keeps them open."""
        self._calls += 1
        out, err = (self.directory / f"{self._calls}.{kind}" for kind in ("out", "err"))
        source = self.directory / f"{self._calls}.in"
        source.write_text(input or "")
        command = [*prefix, *self.runtime.command(self.root, words, tuple(globals_))]
        with open(source) as stdin, open(out, "wb") as stdout, open(err, "wb") as stderr:
            done = subprocess.run(
                command, stdin=stdin, stdout=stdout, stderr=stderr, env=None if env is None else os.environ | env,
                pass_fds=tuple(pass_fds), cwd=cwd or self.bundle, timeout=timeout_s, check=False,
            )  # fmt: skip
        return Done(done.returncode, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def ok(self, *words: str, **keywords: Any) -> str:
        """A call that must succeed; returns its standard output without the last newline."""
        done = self.call(*words, **keywords)
        assert done.status == 0, f"{' '.join(words)}: status {done.status}: {done.err}{done.out}"
        return done.out.removesuffix("\n")

    def fails(self, *words: str, **keywords: Any) -> str:
        """A call that must end with an error; returns the error."""
        done = self.call(*words, **keywords)
        assert done.status != 0, f"{' '.join(words)}: succeeded: {done.out}"
        assert done.err.strip(), f"{' '.join(words)}: status {done.status} without a word"
        assert "Traceback" not in done.err, done.err
        return done.err.strip()

    def background(self, *words: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a call; it is killed after the test."""
        process = subprocess.Popen(self.runtime.command(self.root, words), **({"cwd": self.bundle} | popen))
        self.started.append(process)
        return process

    # ── the container ──────────────────────────────────────────────────────────────────────────────

    def run(self, *args: str, options: Sequence[str] = (), status: int = 0, **keywords: Any) -> str:
        """`run` in the foreground; returns what the container printed, once *status* is the exit status."""
        self.write(*args)
        done = self.call("run", "--bundle", str(self.bundle), *options, self.id, **keywords)
        assert done.status == status, f"run: status {done.status}: {done.err}{done.out}"
        return done.out.removesuffix("\n")

    def sh(self, script: str, **keywords: Any) -> str:
        """`run` of a shell script."""
        return self.run("sh", "-c", script, **keywords)

    def refuses(self, *args: str) -> str:
        """`create` must fail and leave no container; returns the error."""
        self.write(*args)
        error = self.fails("create", "--bundle", str(self.bundle), self.id)
        self.fails("state", self.id)
        return error

    def create(self, *args: str, options: Sequence[str] = (), **keywords: Any) -> None:
        """`create`."""
        self.write(*args)
        self.ok("create", "--bundle", str(self.bundle), *options, self.id, **keywords)
        self._output = self.directory / f"{self._calls}.out"

    def start(self, **keywords: Any) -> None:
        """`start`."""
        self.ok("start", self.id, **keywords)

    def detach(self, *args: str, options: Sequence[str] = (), **keywords: Any) -> None:
        """`run --detach`; without *args* something that sleeps."""
        self.write(*(args or ("sleep", "1000")))
        self.ok("run", "--detach", "--bundle", str(self.bundle), *options, self.id, **keywords)
        self._output = self.directory / f"{self._calls}.out"

    def exec(self, *args: str, options: Sequence[str] = (), status: int = 0, **keywords: Any) -> str:
        """`exec`; returns what the process printed, once *status* is its exit status."""
        done = self.call("exec", *options, self.id, *args, **keywords)
        assert done.status == status, f"exec: status {done.status}: {done.err}{done.out}"
        return done.out.removesuffix("\n")

    def output(self, enough: Callable[[str], object] = bool) -> str:
        """What the container printed so far, as soon as it is *enough*."""
        until(lambda: enough(self._output.read_text()), "output of the container")
        return self._output.read_text().removesuffix("\n")

    def state(self) -> dict[str, Any]:
        """What `state` prints."""
        state: dict[str, Any] = json.loads(self.ok("state", self.id))
        return state

    @property
    def status(self) -> str:
        return str(self.state()["status"])

    @property
    def pid(self) -> int:
        return int(self.state()["pid"])

    def wait_for(self, status: str) -> None:
        """Wait until `state` says so."""
        until(lambda: self.status == status, f"status {status}")

    def cgroup(self, controller: str) -> Path:
        """The container's cgroup; *controller* matters with cgroup v1 only."""
        top = Path("/sys/fs/cgroup")
        unified = (top / "cgroup.controllers").exists()
        return (top if unified else top / controller) / CGROUP_PARENT / self.id

    def limit(self, controller: str, name: str) -> str:
        """The content of a file of the container's cgroup."""
        return (self.cgroup(controller) / name).read_text().strip()

    def known_to_differ(self, name: str, reason: str) -> None:
        """End the test here when the runtime is *name*: its failure is known, and waiting for it is not needed."""
        if self.runtime.name == name:
            pytest.xfail(reason)

    def close(self) -> None:
        """Remove what is left: processes, containers."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(TIMEOUT_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        for name in self.ids:
            self.call("delete", "--force", name)


def keyrings(listing: str) -> set[str]:
    """The serial numbers of the keyrings in /proc/keys, but for those of a user."""
    return {line.split()[0] for line in listing.splitlines() if " keyring " in line and " _uid" not in line}

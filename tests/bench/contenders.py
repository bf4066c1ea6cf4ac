"""The peers, started on the lab host: a Docker daemon and podman of our own, and bundles for runc.

    WORK/            on the machine's disk, for all of them alike
      pyrun/         PYRUN_ROOT
      docker/        dockerd --data-root
      podman/        podman --root
      rootfs/        one copy of the busybox image's only layer, as pyrun made it
      bundle-COMMAND[-seccomp]    `runc spec` bundles on that rootfs
    /run/pyrun-bench/             sockets, pid files and run directories, for all of them alike

All start the same files: the layer of pyrun's busybox image, packed by tar and imported. Everything started here
is stopped by `Peers.close`; the lab's end would end it as well.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

WORK = Path("/var/tmp/pyrun-bench")
RUN = Path("/run/pyrun-bench")
IMAGE = "busybox"
# what a machine without CAP_SYS_RESOURCE makes of podman's defaults is an error; runc, since this crun wants pure v2
PODMAN_RUN = ("--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000")


def crun_program() -> str:
    """The crun that is measured: $CRUN, else the newest of those on PATH; "" where there is none.

    Distributions have old ones (1.8 in Debian 12), and what a start costs has changed since.
    """
    if given := os.environ.get("CRUN"):
        return shutil.which(given) or ""
    places = [shutil.which("crun", path=place) for place in os.get_exec_path()]
    return max((each for each in places if each), key=_release, default="")


def _release(program: str) -> list[int]:
    """1.28 after 1.8: what `crun version 1.28` says, as numbers."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20)
    digits = re.search(r"\d+(\.\d+)*", done.stdout)
    return [int(each) for each in digits[0].split(".")] if digits else []


class NoPeer(Exception):
    """A peer that is not installed or does not start; its rows are left out, and said to be."""


def output(*words: str, stdin: Path | None = None, timeout_s: float = 120) -> str:
    """Run a preparing command; returns what it printed, or raises with what it complained about."""
    with open(stdin or os.devnull, "rb") as source:
        done = subprocess.run(
            words, stdin=source, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    if done.returncode:
        raise NoPeer(f"{' '.join(words[:6])}: status {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()


class Peers:
    """Everything that is measured, ready to run."""

    def __init__(self, pyrun: Path) -> None:
        self.pyrun = str(pyrun)
        self.rootfs = WORK / "rootfs"
        self.archive = WORK / "busybox.tar"
        self.docker: list[str] = []
        self.podman: list[str] = []
        self.missing: dict[str, str] = {}
        self._daemon: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the stores and start the daemon; a peer that does not work is noted in `missing`."""
        discard_work()
        for directory in (WORK, RUN):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["PYRUN_ROOT"] = str(WORK / "pyrun")
        output(self.pyrun, "pull", "-q", IMAGE)
        (layer,) = image_layers(WORK / "pyrun")
        output("cp", "-a", layer, str(self.rootfs))
        output("tar", "-C", str(self.rootfs), "-cf", str(self.archive), ".")
        for name, start in (("docker", self._start_docker), ("podman", self._start_podman)):
            try:
                start()
            except NoPeer as problem:
                self.missing[name] = str(problem)

    def _start_docker(self) -> None:
        # the client of the daemon's own package, not another one that happens to be earlier on PATH
        client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")
        if not client or not shutil.which("dockerd"):
            raise NoPeer("docker is not installed")
        socket = RUN / "docker.sock"
        command = [
            "dockerd", "--data-root", str(WORK / "docker"), "--exec-root", str(RUN / "docker"),
            "--pidfile", str(RUN / "docker.pid"), "-H", f"unix://{socket}",
        ]  # fmt: skip
        with open(WORK / "dockerd.log", "wb") as log:
            self._daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        docker = [client, "-H", f"unix://{socket}"]
        deadline = time.monotonic() + 60
        while subprocess.run([*docker, "version"], capture_output=True, check=False).returncode:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise NoPeer("dockerd does not start: " + (WORK / "dockerd.log").read_text()[-400:])
            time.sleep(0.2)
        output(*docker, "import", str(self.archive), IMAGE)
        self.docker = docker

    def _start_podman(self) -> None:
        if not shutil.which("podman"):
            raise NoPeer("podman is not installed")
        podman = [
            "podman", "--root", str(WORK / "podman"), "--runroot", str(RUN / "podman"), "--runtime", "runc",
        ]  # fmt: skip
        output(*podman, "import", str(self.archive), IMAGE)
        self.podman = podman

    # ── command lines ──────────────────────────────────────────────────────────────────────────────

    def run(self, who: str, *options: str, command: tuple[str, ...] = ("true",)) -> list[str]:
        """`WHO run OPTIONS busybox COMMAND`; an empty list where that peer is missing."""
        prefix: list[str] = {"pyrun": [self.pyrun], "docker": self.docker, "podman": self.podman}[who]
        if not prefix:
            return []
        extra = PODMAN_RUN if who == "podman" else ()
        return [*prefix, "run", *extra, *options, IMAGE, *command]

    def exec(self, who: str, name: str) -> list[str]:
        """`WHO exec NAME true`."""
        prefix = [self.pyrun] if who == "pyrun" else self.docker
        return [*prefix, "exec", name, "true"] if prefix else []

    def remove(self, who: str, *names: str) -> None:
        """`WHO rm -f NAMES`; whatever it says."""
        prefix: list[str] = {"pyrun": [self.pyrun], "docker": self.docker, "podman": self.podman}[who]
        if prefix and names:
            subprocess.run([*prefix, "rm", "-f", *names], capture_output=True, check=False)

    def bundles(self, who: str, bundle: Path) -> list[str]:
        """Start the OCI bundle, as `runc run` does."""
        if who == "runc":
            return ["runc", "--root", str(RUN / "runc"), "run", "--bundle", str(bundle), "bench"]
        return [self.pyrun, "run", "--bundle", str(bundle), "bench"]

    def make_bundle(self, seccomp: bool, command: tuple[str, ...] = ("true",)) -> Path:
        """`runc spec`, with neither terminal nor shell, on the rootfs; with Docker's seccomp profile on request."""
        directory = WORK / f"bundle-{command[0]}{'-seccomp' if seccomp else ''}"
        if not shutil.which("runc"):
            raise NoPeer("runc is not installed")
        if directory.exists():
            return directory
        directory.mkdir()
        output("runc", "spec", "--bundle", str(directory))
        path = directory / "config.json"
        config = json.loads(path.read_text())
        config["process"] |= {"terminal": False, "args": list(command)}
        config["root"]["path"] = str(self.rootfs)
        if seccomp:
            config["linux"]["seccomp"] = dockers_profile(config["process"]["capabilities"]["bounding"])
        path.write_text(json.dumps(config))
        return directory

    # ── the end ────────────────────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Stop the daemon, remove every container of pyrun and all files."""
        names = subprocess.run([self.pyrun, "ps", "-a", "-q"], capture_output=True, text=True, check=False)
        self.remove("pyrun", *names.stdout.split())
        subprocess.run([self.pyrun, "network", "prune", "-f"], capture_output=True, check=False)
        if self._daemon and self._daemon.poll() is None:
            self._daemon.terminate()
            try:
                self._daemon.wait(20)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        discard_work()


def image_layers(store: Path) -> list[str]:
    """The layer directories of the only image in *store*."""
    (description,) = store.glob("images/*/image.json")
    layers: list[str] = json.loads(description.read_text())["layers"]
    return layers


def dockers_profile(capabilities: list[str]) -> dict[str, object]:
    """Docker's default seccomp profile as config.json holds it, resolved for *capabilities*."""
    try:
        from pyrun.spec import seccomp_profile
        from pyrun.spec.capabilities import mask_of
    except ImportError as problem:
        raise NoPeer(f"no seccomp profile: {problem}") from None
    profile: dict[str, object] = seccomp_profile.default_profile(mask_of(capabilities))
    return profile


def discard_work() -> None:
    """Unmount whatever lies below our directories (the lab's mount namespace), then remove them."""
    for directory in (WORK, RUN):
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in reversed([each for each in mounts if each.startswith(f"{directory}/")]):
            subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], check=False)

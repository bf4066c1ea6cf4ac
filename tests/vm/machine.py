"""qemu's command line for a guest, and the storing of a guest that has booted.

The guest is emulated (TCG): no KVM is needed, and everything inside takes ten to thirty times as long. It has no
network, the image as a disk whose changes are forgotten, an erofs as /dev/vdb, and the ports that guest/job tells of.
`mitigations=off` saves a quarter: there is no second tenant. Nehalem is the oldest model that Debian's programs accept.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import cache

PR_SET_PDEATHSIG = 1  # sys/prctl.h
OUTPUTS = ("out", "err", "rc", "tar")
SOURCE_SIZE = 2 << 30  # /dev/vdb as every guest sees it, sparse: a stored guest knows its size
# Services that only cost time: the disk is as it should be, and nobody types at the console.
MASKED = (
    "serial-getty@ttyS0.service", "getty.target", "systemd-udev-trigger.service", "systemd-growfs-root.service",
    "systemd-remount-fs.service", "tmp.mount", "systemd-random-seed.service", "systemd-firstboot.service",
    "modprobe@.service", "systemd-tmpfiles-clean.timer",
)  # fmt: skip


@dataclass
class Machine:
    """A guest: which image, how it boots, how large it is."""

    image: Path
    systemd: bool
    memory_mb: int
    processors: int
    append: str = ""

    @property
    def mode(self) -> str:
        """The name of the boot."""
        return "systemd" if self.systemd else "minimal"

    @property
    def hardware(self) -> list[str]:
        """What a stored guest and a restored one must have in common."""
        return [
            "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem,+rdrand", "-machine", "pc",
            "-smp", str(self.processors), "-m", str(self.memory_mb), "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-nic", "none", "-device", "virtio-serial-pci",
        ]  # fmt: skip

    @property
    def state(self) -> Path:
        """Where the memory of the booted guest is stored; its disk lies beside it (.qcow2)."""
        version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True).stdout
        words = [version.decode().splitlines()[0], *self.hardware, self.kernel_line(stored=True)]
        return self.image / f"{self.mode}-{cache.digest(*(word.encode() for word in words))}.state"

    def kernel_line(self, stored: bool) -> str:
        """The kernel's command line; *stored*: of a guest whose booted state is kept."""
        words = [
            "console=ttyS0 quiet loglevel=4 panic=-1 rootwait random.trust_cpu=on cryptomgr.notests tsc=reliable",
            f"mitigations=off vm.init={self.mode} vm.store={int(stored)}",
        ]
        if self.systemd:
            words += ["systemd.show_status=0 systemd.log_level=warning systemd.firstboot=0"]
            words += [f"systemd.mask={each}" for each in MASKED]
        return " ".join([*words, self.append]).strip()

    def command(
        self, scratch: Path, source: Path, outputs: dict[str, int], disk: str, stored: bool
    ) -> list[str]:
        """qemu's words. *outputs*: port -> descriptor that qemu writes to; *disk*: `file=...` of the root disk."""
        words = ["qemu-system-x86_64", *self.hardware]
        words += ["-chardev", f"file,id=console,path={scratch}/console", "-serial", "chardev:console"]
        words += ["-kernel", f"{self.image}/vmlinuz", "-initrd", f"{self.image}/initrd"]
        words += ["-append", self.kernel_line(stored)]
        words += ["-drive", f"{disk},if=none,id=root,cache=unsafe,discard=unmap"]
        words += ["-device", "virtio-blk-pci,drive=root"]
        words += ["-drive", f"file={source},if=none,id=src,format=raw,readonly=on"]
        words += ["-device", "virtio-blk-pci,drive=src"]
        for number, (port, fd) in enumerate(outputs.items(), 1):
            # append=on: else qemu would truncate, which a pipe refuses
            words += ["-add-fd", f"fd={fd},set={number}"]
            words += ["-chardev", f"file,id={port},path=/dev/fdset/{number},append=on"]
            words += ["-device", f"virtserialport,chardev={port},name=vm.{port}"]
        words += ["-chardev", f"pipe,id=in,path={scratch}/in"]
        words += ["-device", "virtserialport,chardev=in,name=vm.in"]
        return [*words, "-qmp", f"unix:{scratch}/qmp,server=on,wait=off"]


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """In a forked child: it gets this signal when the process that started it ends, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


class StoringFailed(Exception):
    """qemu could not write its state."""


def store(qmp: Path, state: Path) -> None:
    """Write the memory of the running guest to *state* and end it, by qemu's monitor protocol.

    Stopping the guest first would be wrong: it would be stopped after every restore.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(qmp))
        stream = connection.makefile("rw")
        stream.readline()

        def ask(command: str, **arguments: object) -> dict[str, object]:
            stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            stream.flush()
            while "return" not in (answer := json.loads(stream.readline())):
                if "error" in answer:
                    raise StoringFailed(f"{command}: {answer['error']}")
            result: dict[str, object] = answer["return"]
            return result

        ask("qmp_capabilities")
        ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        ask("migrate", uri=f"exec:cat >{state}")
        while (status := ask("query-migrate").get("status")) not in ("completed", "failed"):
            time.sleep(0.1)
        ask("quit")
    if status == "failed":
        raise StoringFailed("qemu could not write the state")

"""The embedded image: one static program that is many (busybox), and the few files a system expects.

Made from the program on this machine, without a network, in a tenth of a second. Equal programs give equal
images, byte for byte: entries are sorted and all times are those of the program.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile

from pyrun.errors import ImageError, NotFound
from pyrun.safe import shell_word
from pyrun.store import image_writer, layers, platforms

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import Image
    from pyrun.store.recipes import Recipe

_DIRECTORIES = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "proc": 0o755, "root": 0o700,
                "run": 0o755, "sbin": 0o755, "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755,
                "usr/sbin": 0o755, "var": 0o755, "var/log": 0o755, "var/spool": 0o755, "var/tmp": 0o1777,
                "var/www": 0o755}  # fmt: skip

_USERS = (("root", 0, "/root", "/bin/sh"), ("daemon", 1, "/usr/sbin", "/bin/false"), ("bin", 2, "/bin", "/bin/false"),
          ("sys", 3, "/dev", "/bin/false"), ("mail", 8, "/var/spool/mail", "/bin/false"),
          ("www-data", 33, "/var/www", "/bin/false"), ("operator", 37, "/var", "/bin/false"),
          ("nobody", 65534, "/nonexistent", "/bin/false"))  # fmt: skip
_GROUPS = (("root", 0), ("daemon", 1), ("bin", 2), ("sys", 3), ("adm", 4), ("tty", 5), ("disk", 6), ("lp", 7),
           ("mail", 8), ("kmem", 9), ("wheel", 10), ("cdrom", 11), ("dialout", 18), ("floppy", 19), ("video", 28),
           ("audio", 29), ("www-data", 33), ("operator", 37), ("utmp", 43), ("users", 100),
           ("nogroup", 65534))  # fmt: skip

_FILES = {
    "etc/passwd": "".join(
        f"{name}:x:{uid}:{uid}:{name}:{home}:{shell}\n" for name, uid, home, shell in _USERS
    ),
    "etc/group": "".join(f"{name}:x:{gid}:\n" for name, gid in _GROUPS),
    "etc/shadow": "".join(f"{name}:*:10933:0:99999:7:::\n" for name, *_ in _USERS),
    "etc/hosts": "127.0.0.1\tlocalhost\n",
    "etc/hostname": "localhost\n",
    "etc/resolv.conf": "",
    "etc/services": "".join(
        f"{name}\t{port}/{kind}\n"
        for name, port, kind in (
            ("ssh", 22, "tcp"),
            ("domain", 53, "udp"),
            ("http", 80, "tcp"),
            ("https", 443, "tcp"),
        )
    ),
}


def build(recipe: Recipe, names: list[str]) -> Image:
    """Build and install the image of a recipe of kind `embedded`; returns its image.json.

    Raises NotFound (the program is not installed), ImageError (it is not what it should be).
    """
    program, package = recipe["program"], recipe.get("package") or ""
    if not os.access(program, os.X_OK):
        remedy = (
            f"apt-get install {shell_word(package)}" if package else f"change `program` in {recipe['path']}"
        )
        raise NotFound(f"the image {recipe['name']} is made from {program}, which does not exist", remedy)
    with open(program, "rb") as file:
        content = file.read()
        seconds = int(os.fstat(file.fileno()).st_mtime)
    if b"/ld-linux" in content[:4096] or b"/ld-musl" in content[:4096]:
        raise ImageError(
            f"{program} is not statically linked", f"apt-get install {shell_word(package)}" if package else ""
        )
    archive = _archive(content, os.path.basename(program), _applets(program), seconds)
    diff_id = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    config_text = image_writer.config_of_one_layer(
        recipe["config"], diff_id, seconds, platforms.host().architecture
    )
    with layers.Staging() as staging:
        return image_writer.install(config_text, lambda number: io.BytesIO(archive), names, staging)


def _applets(program: str) -> list[str]:
    """The names the program answers to, as paths without the leading slash."""
    try:
        listed = subprocess.run([program, "--list-full"], capture_output=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"{program} --list-full failed: {error}", "is it busybox?") from None
    found = sorted(
        {line for line in listed.decode("utf-8", "replace").split("\n") if line and ".." not in line}
    )
    return [path for path in found if path.rpartition("/")[0] in ("bin", "sbin", "usr/bin", "usr/sbin")]


def _archive(content: bytes, program: str, applets: list[str], seconds: int) -> bytes:
    """The layer: directories, the program, a link for each applet, the files of _FILES."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size = kind, mode, len(data)
            entry.mtime, entry.linkname = seconds, target
            archive.addfile(entry, io.BytesIO(data))

        for name, mode in sorted(_DIRECTORIES.items()):
            add(name, tarfile.DIRTYPE, mode)
        add(f"bin/{program}", tarfile.REGTYPE, 0o755, content)
        for path in applets:
            if path != f"bin/{program}":
                add(path, tarfile.SYMTYPE, 0o777, target=_to_bin(path) + program)
        for name, text in sorted(_FILES.items()):
            add(name, tarfile.REGTYPE, 0o640 if name == "etc/shadow" else 0o644, text.encode())
        add("var/run", tarfile.SYMTYPE, 0o777, target="../run")
    return buffer.getvalue()


def _to_bin(path: str) -> str:
    """From the directory of *path* to /bin, relative, so that the tree works under any root."""
    return {"bin": "", "sbin": "../bin/"}.get(path.rpartition("/")[0], "../../bin/")

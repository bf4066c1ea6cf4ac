"""Work in a guest image's files at the machine's own speed: a chroot in namespaces of its own, all changes thrown away.

What takes minutes under emulation (pip, a compiler, byte-compiling) takes seconds here. The directory *source* is seen
as /src, as in the guest, and is the only thing that keeps changes. The network and pip's settings are this machine's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# $1 the image's files, $2 what becomes /src, then the command. /mnt is only a place: the mount namespace is private.
# The image has device nodes of its own: nothing in here reaches this machine's.
SCRIPT = r"""
set -e
mount -t tmpfs scratch /mnt
mkdir /mnt/changes /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/changes,workdir=/mnt/work" root /mnt/root
mount -t proc proc /mnt/root/proc
mount -t sysfs -o ro sys /mnt/root/sys
mount -t tmpfs -o mode=1777 shm /mnt/root/dev/shm
mount --bind "$2" /mnt/root/src
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$file" ]; then cat "$file" >"/mnt/root$file"; fi
done
shift 2
exec chroot /mnt/root "$@"
"""
UNSHARED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")
# of pip's variables, those that name no file of this machine; of the others, what any program needs
KEPT = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "CI")  # fmt: skip
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def run(root: Path, source: Path, *words: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run *words* in /src there; *capture*: keep what it prints in the result."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
        "PIP_CERT": CERTIFICATES, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_NO_CACHE_DIR": "1",
    }  # fmt: skip
    inside = ["sh", "-c", 'cd /src && exec "$@"', "sh", *words]
    pipe = subprocess.PIPE if capture else None
    return subprocess.run(
        [*UNSHARED, "sh", "-c", SCRIPT, "sh", str(root), str(source), *inside],
        env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT if capture else None,
        text=True, check=False,
    )  # fmt: skip

"""The bootstrapped image: Debian, put together from its packages by mmdebstrap.

mmdebstrap does what a registry would: it knows the archive's mirrors, keys and apt's proxy settings. It runs in
a mount namespace of its own. Equal packages give equal images within a day: times are cut to
SOURCE_DATE_EPOCH, or to the start of today (UTC), and what it copies from this machine (name, DNS servers) is
emptied again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time

from pyrun.errors import ImageError, NotFound
from pyrun.notice import say
from pyrun.safe import shell_command, shell_word
from pyrun.store import image_writer, layers, platforms

TYPE_CHECKING = False  # as typing has it, without its 8 ms
if TYPE_CHECKING:
    from pyrun.store.image_json import Image
    from pyrun.store.recipes import Recipe

TIMEOUT_S = 1800
_NEEDED = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux"}
_FORGET_HOST = (
    ': > "$1/etc/hostname"; : > "$1/etc/resolv.conf"; chmod 644 "$1/etc/hostname" "$1/etc/resolv.conf"'
)


def build(recipe: Recipe, names: list[str]) -> Image:
    """Build and install the image of a recipe of kind `bootstrap`; returns its image.json.

    Raises NotFound (mmdebstrap is not installed), ImageError (it failed: its own last words are in the message).
    """
    for program, package in _NEEDED.items():
        if not shutil.which(program):
            raise NotFound(
                f"the image {recipe['name']} is made by {program}, which is not installed",
                f"apt-get install {shell_word(package)}",
            )
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time() // 86400 * 86400)
    with layers.Staging() as staging:
        archive = f"{staging.path}/root.tar"
        say(f"building {recipe['name']} with mmdebstrap, which takes a minute")
        _run(command(recipe, archive), epoch, recipe["name"], command(recipe, "-"))
        with open(archive, "rb") as file:
            diff_id = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        config_text = image_writer.config_of_one_layer(
            recipe["config"], diff_id, epoch, platforms.host().architecture
        )
        return image_writer.install(config_text, lambda number: open(archive, "rb"), names, staging)


def command(recipe: Recipe, archive: str) -> list[str]:
    """The command line that writes the root file system to the tar file *archive*; -: to standard output."""
    words = ["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--format=tar"]
    words += [f"--variant={recipe.get('variant') or 'minbase'}", f"--customize-hook={_FORGET_HOST}"]
    if recipe.get("include"):
        words.append(f"--include={','.join(recipe['include'])}")
    return [*words, "--", recipe["suite"], archive, *([recipe["mirror"]] if recipe.get("mirror") else [])]


def _run(words: list[str], epoch: int, name: str, by_hand: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"building {name}: mmdebstrap did not finish within {TIMEOUT_S} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        errors = (
            [line for line in lines if line.startswith("E: ")] or lines[-1:] or [f"status {done.returncode}"]
        )
        reason = errors[0].removeprefix("E: ").strip()[:300]
        hint = f"try it by hand, which keeps nothing: {shell_command(by_hand)} >/dev/null"
        raise ImageError(f"building {name}: mmdebstrap failed: {reason}", hint)

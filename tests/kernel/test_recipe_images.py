"""Images made on this machine: busybox for real, Debian with a stand-in for mmdebstrap (which needs a mirror)."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from image_files import directory, file, tar
from pyrun.engine import pull
from pyrun.errors import ImageError, NotFound
from pyrun.store import images

IMAGES = Path(__file__).resolve().parents[2] / "images"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PYRUN_IMAGES", str(IMAGES))
    return tmp_path / "root"


def test_busybox_works_offline_and_is_the_same_every_time(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pull.ensure("busybox")
    root = image["layers"][0]
    shown = subprocess.run(["chroot", root, "sh", "-c", "id -un; hostname >/dev/null && echo $(wc -l </etc/passwd)"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert shown.stdout.split() == ["root", "8"]
    assert os.readlink(f"{root}/sbin/ip") == "../bin/busybox"
    assert stat.S_IMODE(os.stat(f"{root}/tmp").st_mode) == 0o1777
    assert not [
        path for path in Path(root).rglob("*") if path.is_symlink() and os.readlink(path).startswith("/")
    ]
    assert image["config"]["Cmd"] == ["sh"]
    assert images.find("busybox") == images.find(image["id"][:6]) == image
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "other"))
    assert pull.ensure("busybox")["id"] == image["id"]


def test_a_program_that_is_missing_or_dynamic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYRUN_IMAGES", str(tmp_path))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text("{kind: embedded, program: /no/such, package: busybox-static}")
    with pytest.raises(NotFound, match="made from /no/such") as caught:
        pull.ensure("tiny")
    assert caught.value.hint == "apt-get install busybox-static"
    recipe.write_text(f"{{kind: embedded, program: {shutil.which('ls')}}}")
    with pytest.raises(ImageError, match="not statically linked"):
        pull.ensure("tiny")


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in on PATH: packs a prepared root, or fails as mmdebstrap does."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "root.tar").write_bytes(
        tar(directory("./", uid=0, gid=0), file("etc/debian_version", b"13", uid=0, gid=0))
    )
    script = tools / "mmdebstrap"
    script.write_text(f'#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\necho "$SOURCE_DATE_EPOCH" > {tools}/epoch\n'
                      f'cp {tools}/root.tar "$3"\n')  # fmt: skip
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return script


def test_debian(mmdebstrap: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    image = pull.ensure("debian")
    assert (Path(image["layers"][0]) / "etc/debian_version").read_text() == "13"
    assert (
        image["created"] == "1970-01-02T00:00:00Z" and (mmdebstrap.parent / "epoch").read_text() == "86400\n"
    )
    assert image["config"]["Cmd"] == ["bash"]
    assert not [name for name in os.listdir(store / "layers") if name.startswith(".")]


def test_debian_cannot_be_built(mmdebstrap: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mmdebstrap.write_text("#!/bin/sh\necho 'I: hello' >&2\necho 'E: no mirror answers' >&2\nexit 1\n")
    with pytest.raises(ImageError, match="building debian: mmdebstrap failed: no mirror answers"):
        pull.ensure("debian")
    assert os.listdir(store / "layers") == []
    monkeypatch.setenv("PATH", str(store))
    with pytest.raises(NotFound, match="made by mmdebstrap, which is not installed") as caught:
        pull.ensure("debian")
    assert caught.value.hint == "apt-get install mmdebstrap"


def test_another_platform_is_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = "s390x" if os.uname().machine != "s390x" else "amd64"
    mirror = tmp_path / "registries.yaml"
    mirror.write_text('{"mirrors": {"docker.io": [{"url": "http://127.0.0.1:1", "only": true}]}}')
    monkeypatch.setenv("PYRUN_REGISTRIES", str(mirror))
    with pytest.raises(
        ImageError, match=r"the recipe .* makes images for linux/.* only; 127.0.0.1:1 cannot be reached"
    ):
        pull.pull("busybox", other)

"""Loading archives: those of skopeo and umoci, those of our own builder, and those nobody should make."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import zstandard

import hostile
from image_files import (
    Image,
    compressed,
    digest,
    directory,
    docker_archive,
    file,
    hard_link,
    index,
    layout,
    symlink,
    tar,
)
from pyrun.engine import load, system
from pyrun.errors import ImageError, NotFound, PyrunError, UsageError
from pyrun.store import image_removal, image_writer, images, layers, paths, platforms

HOST = platforms.host()


def an_image(**options: Any) -> Image:
    layers = [
        tar(directory("usr"), symlink("bin", "usr"), file("usr/a", b"1")),
        tar(file("bin/b", b"2"), file(".wh.nothing")),
    ]
    return Image(layers, HOST.architecture, HOST.variant, **options)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def loaded(name: str) -> dict[str, Any]:
    image: Any = images.find(name)
    assert image is not None
    assert (Path(image["layers"][1]) / "usr/b").read_bytes() == b"2"
    return image  # type: ignore[no-any-return]


def nothing_left(store: Path) -> bool:
    return not images.identifiers() and not list(store.glob("layers/*")) and not list(store.glob("refs/*"))


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ── archives of others ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_skopeo_s_archives(tmp_path: Path, kind: str) -> None:
    source = layout(tmp_path / "layout", an_image(), name="x")
    target = tmp_path / "target"
    run("skopeo", "--insecure-policy", "copy", f"oci:{source}", f"{kind}:{target}:example.com/app:1")
    assert load.load(str(target)) == ["example.com/app:1"]
    assert loaded("example.com/app:1")["config"]["Cmd"] == ["/bin/true"]


def test_umoci_s_layout(tmp_path: Path) -> None:
    """An image made by umoci from a root file system of its own."""
    place = tmp_path / "place"
    run("umoci", "init", "--layout", str(place))
    run("umoci", "new", "--image", f"{place}:mine")
    run("umoci", "unpack", "--image", f"{place}:mine", str(tmp_path / "bundle"))
    (tmp_path / "bundle/rootfs/etc").mkdir()
    (tmp_path / "bundle/rootfs/etc/hello").write_text("world")
    run("umoci", "repack", "--image", f"{place}:mine", str(tmp_path / "bundle"))
    run("umoci", "config", "--image", f"{place}:mine", "--config.cmd", "/bin/sh")
    assert load.load(str(place), "mine:2") == ["mine:2"]
    image: Any = images.find("mine:2")
    assert (Path(image["layers"][-1]) / "etc/hello").read_text() == "world"
    assert image["config"]["Cmd"] == ["/bin/sh"]


# ── our own ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_docker_archive(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(pack(docker_archive(an_image(), "app:1", "example.com/app:2")))
    assert load.load(str(path)) == ["app:1", "example.com/app:2"]
    assert loaded("app:1")["id"] == an_image().id == loaded("example.com/app:2")["id"]
    assert load.load(str(path), "other") == ["other:latest"]


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress, zstandard.compress])
def test_layers_that_are_packed_otherwise(tmp_path: Path, pack: Any) -> None:
    image = an_image()
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["0", "1"]}]
    (tmp_path / "image.tar").write_bytes(tar(
        *[file(str(number), pack(layer)) for number, layer in enumerate(image.layers)],
        file("c.json", image.config_text), file("manifest.json", json.dumps(manifest).encode()),
    ))  # fmt: skip
    assert load.load(str(tmp_path / "image.tar")) == ["app:1"]
    loaded("app:1")


def test_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.tar.gz"
    path.write_bytes(compressed(docker_archive(an_image(), "app:1")))
    before = os.dup(0)
    cat = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    try:
        os.dup2(cat.stdout.fileno(), 0)  # type: ignore[union-attr]
        assert load.load("-") == ["app:1"]
    finally:
        os.dup2(before, 0)
        os.close(before)
        cat.stdout.close()  # type: ignore[union-attr]
        cat.wait()
    loaded("app:1")


def test_layers_behind_links(tmp_path: Path) -> None:
    """Archives that hold a layer once and link to it, as Docker did for shared layers."""
    image = an_image()
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["0/layer.tar", "1/layer.tar"]}]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(
        file("real.tar", image.layers[0]), symlink("0/layer.tar", "../real.tar"), file("other.tar", image.layers[1]),
        hard_link("1/layer.tar", "other.tar"), file("c.json", image.config_text),
        file("manifest.json", json.dumps(manifest).encode()),
    ))  # fmt: skip
    assert load.load(str(path)) == ["app:1"]
    loaded("app:1")


def test_an_image_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(docker_archive(an_image()))
    assert load.load(str(tmp_path / "image.tar")) == [f"sha256:{an_image().id}"]
    loaded(an_image().id[:12])


def test_several_images(tmp_path: Path) -> None:
    one, two = an_image(), an_image(config={"Cmd": ["other"]})
    rows = []
    entries = []
    for number, image in enumerate((one, two)):
        names = [f"{number}-{layer}.tar" for layer in range(2)]
        entries += [file(name, data) for name, data in zip(names, image.layers, strict=True)]
        entries.append(file(f"{number}.json", image.config_text))
        rows.append({"Config": f"{number}.json", "RepoTags": [f"app:{number}"], "Layers": names})
    path = tmp_path / "images.tar"
    path.write_bytes(tar(*entries, file("manifest.json", json.dumps(rows).encode())))
    assert load.load(str(path)) == ["app:0", "app:1"]
    assert loaded("app:0")["layers"] == loaded("app:1")["layers"]
    with pytest.raises(UsageError, match="holds 2"):
        load.load(str(path), "name")


@pytest.mark.parametrize("form", ["directory", "tar"])
def test_an_oci_layout(tmp_path: Path, form: str) -> None:
    path = layout(tmp_path / "layout", an_image(), name="example.com/app:1")
    if form == "tar":
        run("tar", "-C", str(path), "-cf", f"{path}.tar", ".")
        path = Path(f"{path}.tar")
    assert load.load(str(path)) == ["example.com/app:1"]
    loaded("example.com/app:1")


def test_a_layout_of_several_platforms(tmp_path: Path) -> None:
    other = Image([tar(file("x"))], "s390x")
    path = layout(tmp_path / "layout", other, an_image(), name="a.b/c:1", by_platform=True)
    assert load.load(str(path)) == ["a.b/c:1"]
    assert loaded("a.b/c:1")["architecture"] == HOST.architecture
    assert index(other)


def test_an_image_for_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker: it is loaded, and said; whoever names a platform gets that one or none."""
    said: list[str] = []
    monkeypatch.setattr(load, "say", said.append)
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(Image([tar(file("a"))], "s390x"), "app:1"))
    with pytest.raises(ImageError, match="is for linux/s390x, not for linux/arm/v7") as caught:
        load.load(str(path), platform="linux/arm/v7")
    assert caught.value.hint == "`--platform linux/s390x` takes it all the same"
    assert load.load(str(path), platform="linux/s390x") == ["app:1"]
    assert not said
    assert load.load(str(path)) == ["app:1"]
    assert said == [f"{path} is for linux/s390x: it is loaded, but this machine, {HOST}, does not run it"]
    image: Any = images.find("app:1")
    assert image["architecture"] == "s390x"


def test_an_image_of_another_system(tmp_path: Path) -> None:
    image = Image([tar(file("a"))], HOST.architecture)
    text = image.config_text.replace(b'"linux"', b'"windows"')
    row = {"Config": "c.json", "RepoTags": [], "Layers": ["0"]}
    (tmp_path / "image.tar").write_bytes(
        tar(
            file("0", image.layers[0]),
            file("c.json", text),
            file("manifest.json", json.dumps([row]).encode()),
        )
    )
    with pytest.raises(ImageError, match="is for windows/"):
        load.load(str(tmp_path / "image.tar"))
    with pytest.raises(UsageError, match="no platform of Linux images"):
        load.load(str(tmp_path / "image.tar"), platform="windows/amd64")


def test_one_platform_of_a_layout(tmp_path: Path) -> None:
    other = Image([tar(file("x"))], "s390x")
    path = layout(tmp_path / "layout", other, an_image(), name="a.b/c:1", by_platform=True)
    assert load.load(str(path), platform="linux/s390x") == ["a.b/c:1"]
    image: Any = images.find("a.b/c:1")
    assert image["id"] == other.id
    with pytest.raises(ImageError, match="is not available for linux/arm/v7; it is for"):
        load.load(str(path), platform="arm")


def test_a_plain_root(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/sh")
    (root / "manifest.json").write_text("[]")  # a root file system may well have one
    run("tar", "-C", str(root), "-czf", str(tmp_path / "root.tar.gz"), ".")
    with pytest.raises(UsageError, match="neither a docker-archive nor an OCI layout") as caught:
        load.load(str(tmp_path / "root.tar.gz"))
    assert "--tag" in caught.value.hint
    assert load.load(str(tmp_path / "root.tar.gz"), "mine") == ["mine:latest"]
    image: Any = images.find("mine")
    assert os.access(f"{image['layers'][0]}/bin/sh", os.X_OK)
    assert image["config"]["Cmd"] == ["/bin/sh"]
    assert image["architecture"] == HOST.architecture
    assert load.load(str(tmp_path / "root.tar.gz"), "mine", "linux/arm/v6") == ["mine:latest"]
    image = images.find("mine")
    assert (image["architecture"], image["variant"]) == ("arm", "v6")


# ── killed loads ───────────────────────────────────────────────────────────────────────────────────


def killed_load(path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """A load in a process that is killed as it calls *name*."""
    child = os.fork()
    if not child:
        monkeypatch.setattr(module, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        load.load(str(path))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        (layers.Staging, "sync", []),
        (image_writer, "write_record", ["unfinished image", "layer", "layer"]),
        (paths.posix, "fsync", ["unfinished image", "layer", "layer"]),
        (image_writer.images, "read_reference", []),
    ],
)
def test_what_a_killed_load_leaves(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, told: list[str]
) -> None:
    """It is taken away, or the next load makes use of it and tells the right size."""
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(an_image(), "app:1"))
    killed_load(path, monkeypatch, module, name)
    assert load.load(str(path)) == ["app:1"]
    assert (loaded("app:1")["layer_bytes"], loaded("app:1")["size_bytes"]) == ([1, 1], 2)
    shutil.rmtree(store)
    killed_load(path, monkeypatch, module, name)
    lines = image_removal.remove_unneeded()
    assert [line.split(":")[0].rpartition(" ")[0] for line in lines] == told or not told
    assert image_removal.remove_unneeded() == []
    if images.identifiers():
        image_removal.remove(an_image().id)
    assert [each for each in store.rglob("*") if not each.is_dir()] == []
    assert nothing_left(store)


def test_half_written_names_and_records(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(an_image(), "app:1"))
    load.load(str(path))
    (store / "refs/.new-0123").write_text("x")
    (store / f"images/{an_image().id}/image.json.77.tmp").write_text("x")
    assert image_removal.remove_unneeded() == [
        "unfinished name 0123: removed",
        f"unfinished record of image {an_image().id[:12]}: removed",
    ]
    loaded("app:1")


def test_layers_of_a_load_that_runs_are_left_alone(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(an_image(), "app:1"))
    killed_load(path, monkeypatch, image_writer, "write_record")
    with layers.Staging():
        assert [line.split(" ")[0] for line in image_removal.remove_unneeded()] == ["unfinished"]
    done: list[str] = []
    system._layers(done, [])
    assert [line.partition(" ")[0] for line in done] == ["layer", "layer"]
    assert nothing_left(store)


def test_layers_are_needed_by_whatever_way_the_store_is_reached(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """image.json names layers by the path the store had; a link to it is another path to the same layers."""
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(an_image(), "app:1"))
    load.load(str(path))
    (tmp_path / "link").symlink_to(store)
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "link"))
    assert image_removal.remove_unneeded() == []
    loaded("app:1")


def test_a_size_that_was_never_known_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(an_image(), "app:1"))
    load.load(str(path))
    image = loaded("app:1")
    image_writer.write_record(image | {"layer_bytes": [0, 0], "size_bytes": 0})
    load.load(str(path))
    assert loaded("app:1")["layer_bytes"] == [1, 1]
    os.link(f"{image['layers'][0]}/usr/a", f"{image['layers'][0]}/usr/c")
    assert layers.size_bytes(image["layers"][0]) == 1


# ── those nobody should make ───────────────────────────────────────────────────────────────────────


def spoiled_layout(tmp_path: Path, blob: bytes) -> Path:
    path = layout(tmp_path / "layout", an_image(), name="a.b/c:1")
    (path / "blobs/sha256" / digest(blob)[7:]).write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    return path


@pytest.mark.parametrize("which", ["manifest", "config_text", "layer"])
def test_tampered_blobs(tmp_path: Path, store: Path, which: str) -> None:
    blob = an_image().blobs[1] if which == "layer" else getattr(an_image(), which)
    with pytest.raises(ImageError, match=r"not match its digest|not valid gzip"):
        load.load(str(spoiled_layout(tmp_path, blob)))
    assert nothing_left(store)


def archive_with(**changes: Any) -> bytes:
    image = an_image()
    row = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["0.tar", "1.tar"]} | changes
    return tar(file("0.tar", image.layers[0]), file("1.tar", image.layers[1]), file("c.json", image.config_text),
               file("manifest.json", json.dumps([row]).encode()))  # fmt: skip


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", ImageError, "is empty"),
        (bytes(1024), UsageError, "neither"),
        (b"hello" * 1000, ImageError, "not a tar archive"),
        (b"hello", ImageError, "not a tar archive, or damaged: it is 5 bytes long"),
        (docker_archive(an_image(), "app:1")[:1500], ImageError, "truncated"),
        (compressed(docker_archive(an_image(), "app:1"))[:500], ImageError, "truncated"),
        (archive_with(Config="../../etc/passwd"), ImageError, "missing"),
        (archive_with(Config=7), ImageError, "wrong type"),
        (archive_with(Layers="x"), ImageError, "wrong type"),
        (archive_with(Layers=["0.tar"]), ImageError, "1 layers, but 2 diff ids"),
        (archive_with(Layers=["0.tar", "/etc/passwd"]), ImageError, "missing"),
        (archive_with(Layers=["1.tar", "0.tar"]), ImageError, "layer 1 is not what the image says"),
        (archive_with(RepoTags=["../../x"]), UsageError, "invalid image reference"),
        (archive_with(Config="0.tar"), ImageError, "not JSON"),
        (
            docker_archive(Image([tar(file("../a"))], HOST.architecture, HOST.variant), "app:1"),
            ImageError,
            r"'\.\.'",
        ),
        (b"BZh9" + bytes(100), ImageError, "not valid bzip2"),
    ],
)
def test_bad_archives(tmp_path: Path, store: Path, data: bytes, kind: type[PyrunError], reason: str) -> None:
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(kind, match=reason) as caught:
        load.load(str(tmp_path / "bad.tar"))
    assert "\n" not in caught.value.message
    assert nothing_left(store)


def test_a_layer_that_links_out_of_the_archive(tmp_path: Path, store: Path) -> None:
    """Names lead to entries of the archive, never to files of this machine."""
    (tmp_path / "secret").write_bytes(an_image().layers[0])
    row = {"Config": "c.json", "RepoTags": [], "Layers": ["0.tar", "loop"]}
    data = tar(symlink("0.tar", str(tmp_path / "secret")), symlink("loop", "loop"),
               file("c.json", an_image().config_text),
               file("manifest.json", json.dumps([row]).encode()))  # fmt: skip
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(ImageError, match=r"'0\.tar' is missing"):
        load.load(str(tmp_path / "bad.tar"))
    assert nothing_left(store)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such file"):
        load.load(str(tmp_path / "nothing.tar"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="not an OCI layout"):
        load.load(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["index.json", "blob"])
@pytest.mark.parametrize("kind", ["fifo", "device", "link"])
def test_a_directory_with_what_is_no_file(tmp_path: Path, store: Path, name: str, kind: str) -> None:
    """Never waited for, never read without an end."""
    made = layout(tmp_path / "layout", an_image(), name="x:1")
    place = (
        made / name if name == "index.json" else made / "blobs/sha256" / digest(an_image().config_text)[7:]
    )
    place.unlink()
    if kind == "link":
        place.symlink_to("/proc/kmsg")
    else:
        hostile.odd_file(place, kind)
    with pytest.raises(ImageError, match=r"not a regular file|a file of the kernel"):
        load.load(str(made))
    assert nothing_left(store)


def test_an_archive_of_very_many_images(tmp_path: Path, store: Path) -> None:
    rows = [{"Config": "c.json", "RepoTags": [], "Layers": []}] * 1001
    names = [{"Config": "c.json", "RepoTags": ["x"] * 1001, "Layers": []}]
    for listed, reason in ((rows, "holds 1001 images"), (names, "1001 names of an image")):
        (tmp_path / "bad.tar").write_bytes(tar(file("manifest.json", json.dumps(listed).encode())))
        with pytest.raises(ImageError, match=reason):
            load.load(str(tmp_path / "bad.tar"))
    assert nothing_left(store)

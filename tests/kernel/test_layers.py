"""Layers over layers: what a layer means depends on those below it, and the kernel decides (overlay_view.py)."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from image_files import Image, device, directory, file, hard_link, symlink, tar
from jobs import job_of
from pyrun import launch, linux
from pyrun.engine import run, system
from pyrun.errors import Conflict, ImageError
from pyrun.store import image_removal, image_writer, images, inflate, layers, overlay_view, references, unpack
from sandbox import in_child

NAME = references.parse("test/image").full


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def install(*archives: bytes, name: str = NAME) -> dict[str, Any]:
    """An image of those layers in the store."""
    image = Image(list(archives), compress=False)
    with layers.Staging() as staging:
        return image_writer.install(image.config_text, lambda n: reader(archives[n]), [name], staging)


def reader(data: bytes) -> Any:
    return io.BytesIO(data)


def merged(image: dict[str, Any], check: Any) -> Any:
    """Call *check* with the root a container would see, mounted in a namespace of a thread that then ends."""
    result: list[Any] = []

    def body() -> None:
        from pyrun import linux

        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
        place = Path(images.paths.root()) / "seen"
        place.mkdir(exist_ok=True)
        lower = ":".join([*reversed(image["layers"]), str(place)])
        linux.mount("overlay", str(place), "overlay", 0, f"lowerdir={lower}")
        result.append(check(place))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert result
    return result[0]


def listing(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): os.readlink(path)
        if path.is_symlink()
        else "/"
        if path.is_dir()
        else path.read_text()
        for path in sorted(root.rglob("*"))
    }


def test_a_link_of_a_lower_layer_is_followed() -> None:
    """Merged /usr: the upper layer names lib/b, the lower one made lib a link; neither hides the other."""
    image = install(
        tar(directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/a", b"1")),
        tar(file("lib/b", b"2")),
    )
    assert merged(image, listing) == {
        "lib": "usr/lib",
        "usr": "/",
        "usr/lib": "/",
        "usr/lib/a": "1",
        "usr/lib/b": "2",
    }
    assert not (Path(image["layers"][1]) / "lib").exists()
    assert (Path(image["layers"][1]) / "usr/lib/b").read_text() == "2"


def test_an_absolute_link_of_a_lower_layer_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with pytest.raises(ImageError, match="link to nowhere"):
        install(tar(symlink("l", str(tmp_path / "outside"))), tar(file("l/x", b"x")))
    with pytest.raises(ImageError, match="may only be a directory"):
        install(tar(file("a")), tar(symlink("./", str(tmp_path / "outside"))), tar(file("x", b"x")))
    assert not os.listdir(tmp_path / "outside")


def test_parents_not_listed_keep_mode_and_owner() -> None:
    image = install(
        tar(
            directory("./", mode=0o711),
            directory("tmp", mode=0o1777),
            directory("home", uid=5, gid=6, mode=0o750),
        ),
        tar(file("tmp/x", b"1"), file("home/y", b"2"), file("new/z", b"3")),
    )

    def check(root: Path) -> None:
        assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
        assert ((root / "home").stat().st_uid, stat.S_IMODE((root / "home").stat().st_mode)) == (5, 0o750)
        assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755
        assert stat.S_IMODE(root.stat().st_mode) == 0o711

    merged(image, lambda root: check(root) or True)


def test_a_hard_link_to_a_file_below() -> None:
    image = install(tar(file("a", b"1")), tar(hard_link("b", "a")))
    assert merged(image, listing) == {"a": "1", "b": "1"}


def test_whiteouts_hide_what_is_below() -> None:
    image = install(
        tar(
            directory("d"),
            file("d/x", b"1"),
            file("d/y", b"1"),
            directory("e"),
            file("e/x", b"1"),
            file("f", b"1"),
        ),
        tar(file("d/.wh.x"), file(".wh.e"), file(".wh.nothing")),
        tar(directory("e"), file("e/z", b"3")),
    )
    assert merged(image, listing) == {"d": "/", "d/y": "1", "e": "/", "e/z": "3", "f": "1"}
    whiteout = (Path(image["layers"][1]) / "d/x").lstat()
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0


@pytest.mark.parametrize("order", ["first", "last"])
def test_an_opaque_directory_hides_all_but_its_own(order: str) -> None:
    mark, own = file("d/.wh..wh..opq"), [file("d/new", b"2"), directory("d/sub"), file("d/sub/new", b"2")]
    image = install(
        tar(
            directory("d"),
            file("d/old", b"1"),
            directory("d/sub"),
            file("d/sub/old", b"1"),
            directory("d/gone"),
            file("d/gone/x"),
        ),
        tar(directory("d"), *([mark, *own] if order == "first" else [*own, mark])),
    )
    assert merged(image, listing) == {"d": "/", "d/new": "2", "d/sub": "/", "d/sub/new": "2"}


def test_kinds_change_from_layer_to_layer() -> None:
    image = install(
        tar(directory("a"), file("a/x", b"1"), file("b", b"1"), symlink("c", "b")),
        tar(file("a", b"2"), directory("b"), file("b/y", b"2"), file("c", b"2")),
    )
    assert merged(image, listing) == {"a": "2", "b": "/", "b/y": "2", "c": "2"}


def test_nobody_sees_the_mount() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    seen: list[str] = []
    real, overlay_view.unpack = overlay_view.unpack, lambda *args: (  # type: ignore[assignment]
        seen.append(Path("/proc/self/mountinfo").read_text()), real(*args)
    )[1]  # fmt: skip
    try:
        install(tar(file("a", b"1")), tar(file("b", b"2")))
    finally:
        overlay_view.unpack = real
    assert seen == [before, before]  # /proc/self is the main thread's view
    assert Path("/proc/self/mountinfo").read_text() == before


def test_owners_devices_and_capabilities(store: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    headers = {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    image = install(
        tar(file("f", b"x", uid=1234, gid=5678, mode=0o6755), file("ping", b"x", mode=0o755, pax_headers=headers),
            device("null", 1, 3), file("big", b"x", uid=3_000_000_000))
    )  # fmt: skip
    root = Path(image["layers"][0])
    status = (root / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o6755)
    assert os.getxattr(root / "ping", "security.capability") == capability
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert (root / "big").stat().st_uid == 3_000_000_000
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert stat.S_IMODE((store / "layers").stat().st_mode) == 0o700


def test_overlay_attributes_are_not_smuggled_in() -> None:
    headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}
    image = install(tar(directory("d"), file("d/x", b"1")), tar(directory("d", pax_headers=headers)))
    assert merged(image, listing) == {"d": "/", "d/x": "1"}
    with pytest.raises(ImageError, match="0:0 device"):
        install(tar(file("a")), tar(device("a", 0, 0)))


def test_a_diff_id_that_differs_leaves_nothing(store: Path) -> None:
    good = Image([tar(file("a", b"1")), tar(file("b", b"2"))], compress=False)
    with layers.Staging() as staging, pytest.raises(ImageError, match="layer 2 is not what the image says"):
        image_writer.install(
            good.config_text, lambda n: reader([good.layers[0], tar(file("b", b"3"))][n]), [NAME], staging
        )
    assert [str(path) for path in store.rglob("*") if path.is_file()] == []
    assert os.listdir(store / "layers") == []


@in_child
def test_a_full_disk(store: Path) -> None:
    """On a small tmpfs: one clear line, and nothing is left."""
    store.mkdir(exist_ok=True)
    linux.mount("tmpfs", str(store), "tmpfs", 0, "size=2m")
    with pytest.raises(ImageError, match=r"[Nn]o space left"):
        install(tar(file("a", os.urandom(1_000_000))), tar(file("b", os.urandom(3_000_000))))
    assert [name for _, _, names in os.walk(store) for name in names] == []


def test_layers_are_shared_and_go_with_their_last_image(store: Path) -> None:
    base = tar(file("a", b"1"))
    one = install(base, tar(file("b", b"2")), name=references.parse("one").full)
    two = install(base, tar(file("c", b"3")), name=references.parse("two").full)
    assert one["layers"][0] == two["layers"][0]
    assert two["size_bytes"] == 2
    assert image_removal.remove("one")[0] == "Untagged: one:latest"
    assert images.find("one") is None
    assert sorted(os.listdir(store / "layers")) == sorted(os.path.basename(layer) for layer in two["layers"])
    image_removal.remove(two["id"][:8])
    assert os.listdir(store / "layers") == [] and images.identifiers() == []


def test_layers_another_image_needs_stay_by_whatever_way_the_store_is_reached(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images that share a layer, one was installed through a link: their records say two paths."""
    base = tar(file("a", b"1"))
    install(base, tar(file("b", b"2")), name=references.parse("one").full)
    (tmp_path / "link").symlink_to(store)
    monkeypatch.setenv("PYRUN_ROOT", str(tmp_path / "link"))
    two = install(base, tar(file("c", b"3")), name=references.parse("two").full)
    monkeypatch.setenv("PYRUN_ROOT", str(store))
    assert len(image_removal.remove("one")) == 3
    assert merged(two, listing) == {"a": "1", "c": "3"}
    image_removal.remove("two")
    assert os.listdir(store / "layers") == []


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"layers": null}', '{"layers": ["/etc"]}', '{"layers": [1]}']
)
def test_a_broken_record_can_be_removed_and_takes_no_layer_with_it(store: Path, record: str) -> None:
    base = tar(file("a", b"1"))
    broken = install(base, tar(file("b", b"2")), name=references.parse("broken").full)
    install(base, tar(file("c", b"3")), name=references.parse("other").full)
    last = install(base, tar(file("d", b"4")), name=references.parse("last").full)
    (store / "images" / broken["id"] / "image.json").write_text(record)
    assert image_removal.remove("other")[-1].startswith(
        "layers are kept, the record of another image is broken"
    )
    assert image_removal.remove_unneeded() == []
    assert image_removal.remove("broken")[1:-1] == [f"Deleted: sha256:{broken['id']}"]
    assert merged(last, listing) == {"a": "1", "d": "4"}
    assert len(image_removal.remove_unneeded()) == 2
    image_removal.remove("last")
    assert os.listdir(store / "layers") == [] and images.identifiers() == []


def test_a_broken_record_is_healed_by_the_next_installation(store: Path) -> None:
    archives = tar(file("a", b"1")), tar(file("b", b"2"))
    image = install(*archives)
    (store / "images" / image["id"] / "image.json").write_text("{")
    assert install(*archives) == image


def test_an_image_that_a_start_takes_meanwhile_stays(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start writes its record after rmi has looked for containers, and before the image is gone."""
    image = install(tar(file("a", b"1")))
    ask = image_removal.containers_of
    before = sorted(store.rglob("*"))

    def and_one_begins(identifier: str) -> list[str]:
        users = ask(identifier)
        begin(image, store / "containers" / "c")
        return users

    monkeypatch.setattr(image_removal, "containers_of", and_one_begins)
    with pytest.raises(Conflict, match="used by container c"):
        image_removal.remove(NAME)
    assert sorted(store.rglob("*"))[-len(before) :] == before and images.find(NAME) == image


def test_a_start_whose_image_was_removed_meanwhile_ends(store: Path) -> None:
    image = install(tar(file("a", b"1")))
    begin(image, store / "containers" / "c")
    shutil.rmtree(store / "containers")
    image_removal.remove(NAME)
    with pytest.raises(ImageError, match="image x was removed meanwhile"):
        begin(image, store / "containers" / "c")


def begin(image: dict[str, Any], keep: Path) -> None:
    """What a start does between its decisions and its first process."""
    record = {"image": "x", "image_id": image["id"], "name": keep.name}
    if not keep.exists():
        run._make(str(keep), {}, record, launch.Launch({}, job_of(), []))


def test_the_same_diff_on_another_base_is_another_layer() -> None:
    upper = tar(file("lib/x", b"x"))
    linked = install(
        tar(directory("usr"), symlink("lib", "usr")), upper, name=references.parse("linked").full
    )
    plain = install(tar(directory("lib")), upper, name=references.parse("plain").full)
    assert linked["diff_ids"][1] == plain["diff_ids"][1]
    assert merged(linked, listing)["usr/x"] == merged(plain, listing)["lib/x"] == "x"


def test_many_layers() -> None:
    """As many as Docker allows; their paths together are longer than mount options may be."""
    image = install(*[tar(file(f"f{n}", b"%d" % n)) for n in range(60)])
    assert len(image["layers"]) == 60
    assert (Path(image["layers"][59]) / "f59").read_text() == "59"


def test_stopping(store: Path) -> None:
    stop = threading.Event()
    stop.set()
    with layers.Staging() as staging, pytest.raises(unpack.Stopped):
        os.mkdir(f"{staging.path}/0")
        overlay_view.unpack_over(
            inflate.Stream(reader(tar(file("a"))).read, "x"), f"{staging.path}/0", "", [], stop
        )


def test_files_on_their_way_out_are_swept(store: Path) -> None:
    """Whoever was to take them away was killed."""
    with layers.Staging() as staging:
        Path(staging.path, "x").write_text("")
        gone = Path(layers.discard(f"{staging.path}/x"))
        (store / "layers/.old-x").symlink_to("nowhere")
        assert layers.sweep() == sorted([str(gone), str(store / "layers/.old-x")])
    (store / "refs").mkdir()
    (store / "refs/.new-0").write_text("")
    assert image_removal.remove_unneeded() == ["unfinished name 0: removed"]
    assert os.listdir(store / "refs") == [] == os.listdir(store / "layers")


def test_sweep_takes_the_dead_and_spares_the_living(store: Path) -> None:
    dead = store / "layers" / ".new-0123456789abcdef"
    dead.mkdir(parents=True)
    (dead / "0").mkdir(mode=0)
    with layers.Staging() as staging:
        assert layers.sweep() == [str(dead)]
        assert os.path.isdir(staging.path)
    assert os.listdir(store / "layers") == []


def test_what_cannot_be_swept_stops_nothing(store: Path) -> None:
    """A mount point cannot be removed: what is beside it goes, an installation goes on, and it is told, a line each."""
    stuck, dead = store / "layers/.old-1", store / "layers/.old-2"
    (stuck / "mounted").mkdir(parents=True)
    dead.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(stuck / "mounted")], check=True)
    told: list[str] = []
    try:
        assert layers.sweep(told.append) == [str(dead)]
        assert len(told) == 1 and f"{stuck} cannot be removed: " in told[0] and "reconcile" in told[0]
        image = install(tar(file("a", b"1")))
        assert image_removal.remove(NAME)[-1].startswith("Deleted: ")
        done, failed = system.reconcile_all()
        assert not done and [line for line in failed if str(stuck) in line], (done, failed)
        assert image["id"] not in images.identifiers()
    finally:
        subprocess.run(["umount", str(stuck / "mounted")], check=True)
    assert layers.sweep(told.append) == [str(stuck)]


def test_a_dead_staging_area_that_stays_is_no_installation(store: Path) -> None:
    (store / "layers/.new-1").mkdir(parents=True)
    assert not layers.in_use()
    with layers.Staging():
        assert layers.in_use()


def test_whiteouts_of_deep_trees_below(store: Path) -> None:
    """What an overlay shows of the layers below cannot be renamed, and is walked; with directories of both kinds."""
    deep = "t/" + "/".join(["d"] * 200)
    below, above = (
        tar(file(f"{deep}/f", b"1"), file("kept")),
        tar(
            file(f"{deep}/new/new/f"),
            file(f"{deep.replace('d', 'e')}/f"),
            file(".wh.t"),
            directory("t"),
            file("t/last"),
        ),
    )
    shown = merged(install(below, above), lambda place: sorted(os.listdir(place)) + os.listdir(place / "t"))
    assert shown == ["kept", "t", "last"]


def test_opaque_marks_are_carried_out_once(store: Path) -> None:
    """Each looks at all of its directory: very many took the square of that."""
    marks = [file("d/.wh..wh..opq")] * 3000
    own = [directory("d/own"), *[file(f"d/own/{number}") for number in range(3000)]]
    began = os.times().user
    image = install(tar(file("d/gone"), file("d/own/gone")), tar(*own, *marks, file("d/.wh..wh..opq")))
    assert os.times().user - began < 10
    assert merged(
        image, lambda place: [*sorted(os.listdir(place / "d")), len(os.listdir(place / "d/own"))]
    ) == ["own", 3000]

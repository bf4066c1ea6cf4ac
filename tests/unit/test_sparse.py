"""Sparse files in archives: as GNU tar writes them in four formats, and as nobody should."""

from __future__ import annotations

import os
import random
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from image_files import file, tar
from pyrun.errors import ImageError
from pyrun.store import archives, inflate, sparse, tarstream, unpack

FORMATS = {
    "old": ["--format=gnu"],
    "0.0": ["--format=posix", "--sparse-version=0.0"],
    "0.1": ["--format=posix", "--sparse-version=0.1"],
    "1.0": ["--format=posix", "--sparse-version=1.0"],
}
PAGE = 4096


def holey(path: Path, pieces: int) -> Path:
    """A file with so many pieces, a hole before, between and behind them."""
    with path.open("wb") as target:
        for number in range(pieces):
            target.seek((2 * number + 1) * PAGE)
            target.write(bytes([number % 255 + 1]) * PAGE)
        target.truncate((2 * pieces + 1) * PAGE)
    return path


def packed(directory: Path, form: str, *names: str) -> bytes:
    done = subprocess.run(
        ["tar", "-C", str(directory), "--hole-detection=raw", "-S", *FORMATS[form], "-c", *names],
        capture_output=True,
        check=True,
    )
    return done.stdout


def stream_of(data: bytes) -> inflate.Stream:
    rest = [data]

    def read(count: int) -> bytes:
        taken, rest[0] = rest[0][:count], rest[0][count:]
        return taken

    return inflate.Stream(read, "the test archive")


def unpacked(data: bytes, root: Path) -> unpack.Unpacked:
    root.mkdir(exist_ok=True)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack.unpack(stream_of(data), fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("pieces", [0, 1, 4, 5, 60])
def test_what_gnu_tar_writes(tmp_path: Path, form: str, pieces: int) -> None:
    """The same bytes come out, the holes stay holes, and the entry behind is read as well."""
    source = holey(tmp_path / "a", pieces)
    (tmp_path / "z").write_text("behind")
    data = packed(tmp_path, form, "a", "z")
    assert len(data) < source.stat().st_size or pieces < 60
    done = unpacked(data, tmp_path / "root")
    assert (tmp_path / "root/a").read_bytes() == source.read_bytes()
    assert (tmp_path / "root/z").read_text() == "behind"
    assert (done.count, done.size_bytes) == (2, pieces * PAGE + 6)
    assert (tmp_path / "root/a").stat().st_blocks * 512 <= (pieces + 1) * PAGE


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_maps_raise_nothing_else(tmp_path: Path, form: str) -> None:
    holey(tmp_path / "a", 30)
    good = packed(tmp_path, form, "a")
    dice = random.Random(form)
    for turn in range(150):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(3 * 512)] = (
                dice.choice(b"0123456789\n,\0\xff") if turn % 2 else dice.randrange(256)
            )
        for at in range(0, 4 * 512, 512):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
        try:
            unpacked(bytes(data), tmp_path / "root")
        except ImageError:
            pass


def records(**more: str) -> dict[str, Any]:
    return {"pax_headers": {f"GNU.sparse.{key}": value for key, value in more.items()}}


def in_front(*numbers: int, whole: int = 4096, data: bytes = b"x" * 512) -> bytes:
    """Format 1.0 with a map of those numbers, the count first."""
    text = b"".join(b"%d\n" % number for number in numbers)
    text += bytes(-len(text) % 512)
    return tar(file("s", text + data, **records(major="1", minor="0", name="s", realsize=str(whole))))


def by_record(text: str, *, size: int = 4096, data: bytes = b"x" * 512, **more: str) -> bytes:
    return tar(file("s", data, **records(map=text, size=str(size), **more)))


def old(*, magic: bytes = b"ustar  \0", numbers: tuple[int, ...] = (0, 512), more: int = 0) -> bytes:
    info = tarfile.TarInfo("s")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[257:265] = magic
    block[386 : 386 + 12 * len(numbers)] = b"".join(b"%011o\0" % number for number in numbers)
    block[482], block[483:495] = more, b"%011o\0" % 4096
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "overlapping": (by_record("0,300,200,212"), "overlap or are out of order at 200"),
    "out of order": (by_record("1024,256,0,256"), "overlap or are out of order at 0"),
    "twice": (in_front(2, 0, 256, 0, 256), "overlap"),
    "beyond the end": (by_record("4000,512"), "does not fit"),
    "of another length than the data": (by_record("0,511"), "does not fit"),
    "more than the data": (by_record("0,1024"), "does not fit"),
    "half a piece": (by_record("0,512,600"), "does not fit"),
    "without a size": (tar(file("s", b"x" * 512, **records(map="0,512"))), "not decimal"),
    "negative": (by_record("-1,512"), "not decimal"),
    "enormous": (by_record("0,512", size=1 << 62), "a sparse file of 4611686018427387904 bytes"),
    "numbers without end": (by_record("0," + "9" * 30), "not decimal"),
    "unknown version": (by_record("0,512", major="2", minor="0"), "a version that is not known"),
    "records that do not take turns": (
        tar(file("s", b"x" * 512, **records(numbytes="512", size="4096"))), "do not take turns",
    ),
    "a map longer than the data": (in_front(1000, 0, 512), "a sparse map longer than its data"),
    "a map without end": (
        in_front(999_999_999, data=b"1\n" * 600_000), "a sparse map longer than its data, or than 1048576",
    ),
    "a link": (
        tar(file("s", type=tarfile.SYMTYPE, linkname="t", **records(map="0,0", size="0"))), "a symlink and sparse",
    ),
    "old, not of GNU": (old(magic=b"ustar\x0000") + bytes(1024), "that GNU tar did not write"),
    "old, overlapping": (old(numbers=(0, 256, 0, 256)) + bytes(1024), "overlap"),
    "old, endless": (old(more=1) + (bytes(504) + b"\1" + bytes(7)) * 3000, "more than 1048576 bytes"),
    "old, cut off": (old(more=1), "truncated"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_maps_that_lie(tmp_path: Path, name: str) -> None:
    data, reason = HOSTILE[name]
    with pytest.raises(ImageError, match=reason):
        unpacked(data, tmp_path / "root")


def test_the_name_is_still_checked(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"'\.\.'"):
        unpacked(by_record("0,512", name="../outside"), tmp_path / "root")
    assert not (tmp_path / "outside").exists()


def test_honest_maps_by_hand(tmp_path: Path) -> None:
    """What the table above spoils, unspoiled."""
    for data in (
        by_record("100,512"),
        in_front(1, 100, 512),
        old(numbers=(100, 512)) + b"x" * 512 + bytes(1024),
    ):
        unpacked(data, tmp_path / "root")
        assert (tmp_path / "root/s").read_bytes() == bytes(100) + b"x" * 512 + bytes(4096 - 612)


def test_a_sparse_layer_of_an_archive_is_named(tmp_path: Path) -> None:
    """Files that are looked for by name are read where they lie, which holes do not allow."""
    path = tmp_path / "image.tar"
    path.write_bytes(by_record("0,512"))
    with path.open("rb") as opened:
        archive = archives.TarFile(opened, str(path))
        assert not archive.has("s")
        with pytest.raises(ImageError, match="the file 's' is sparse"):
            archive.open("s")
    entry = next(tarstream.entries(stream_of(by_record("0,512"))))
    assert (entry.pieces, entry.whole_bytes, entry.size_bytes) == ([(0, 512)], 4096, 512)
    assert sparse.form(b"0", {}, stream_of(b"")) == ""

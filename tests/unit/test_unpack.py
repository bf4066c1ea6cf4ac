"""Unpacking: what an honest archive says is done; nothing an archive says is done outside its directory.

HOSTILE is the table of attacks: each is refused with a reason, or lands harmlessly inside; in every case what
lies outside is as it was. Layers over layers need root (a mount): tests/kernel/test_layers.py.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import stat
import subprocess
import sys
import tarfile
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from image_files import Entry, compressed, device, digest, directory, entry, file, hard_link, symlink, tar
from pyrun.errors import ImageError
from pyrun.store import inflate, layers, nodes, tarstream, unpack


def unpacked(data: bytes, root: Path, **options: Any) -> unpack.Unpacked:
    """Unpack an archive below *root*."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack.unpack(stream_of(data), fd, **options)
    finally:
        os.close(fd)


def stream_of(data: bytes, limit_bytes: int = inflate.MAX_BYTES) -> inflate.Stream:
    reader = memoryview(data)
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        piece = bytes(reader[position : position + count])
        position += len(piece)
        return piece

    return inflate.Stream(read, "the test archive", limit_bytes)


def tree(root: Path) -> dict[str, tuple[str, bytes]]:
    """Every name below a directory with its kind and content."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(root))] = ("link", os.readlink(path).encode())
        elif path.is_dir():
            found[str(path.relative_to(root))] = ("directory", b"")
        else:
            kind = "file" if path.is_file() else "special"
            found[str(path.relative_to(root))] = (kind, path.read_bytes() if kind == "file" else b"")
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The canary beside the root: a secret file and a directory."""
    path = tmp_path / "outside"
    (path / "directory").mkdir(parents=True)
    (path / "secret").write_text("untouched")
    (path / "directory" / "x").write_text("untouched too")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def pax(**headers: str) -> dict[str, Any]:
    return {"pax_headers": {key.replace("__", "."): value for key, value in headers.items()}}


OUT = "@OUTSIDE@"  # replaced by the canary's absolute path
UP = "../outside"

# name -> (entries, the reason of the refusal, or what is found inside afterwards)
HOSTILE: dict[str, tuple[list[Entry], str | dict[str, bytes]]] = {
    "absolute name": ([file("/etc/passwd", b"x")], {"etc/passwd": b"x"}),
    "absolute name outside": ([file(f"{OUT}/secret", b"x")], {}),
    "dot dot": ([file(f"{UP}/secret", b"x")], "'..'"),
    "dot dot in the middle": ([file("a/../../outside/secret", b"x")], "'..'"),
    "dot dot by PAX path": ([file("a", b"x", **pax(path=f"{UP}/secret"))], "'..'"),
    "dot dot by GNU long name": ([file("a/" * 60 + "../" * 70 + "outside/secret", b"x")], "'..'"),
    "absolute link, then through it": ([symlink("l", OUT), file("l/secret", b"x")], "link to nowhere"),
    "relative link, then through it": ([symlink("l", UP), file("l/secret", b"x")], "link to nowhere"),
    "link to the root's parent": ([symlink("l", "../../.."), file("l/secret", b"x")], {"secret": b"x"}),
    "chain of links up": (
        [directory("d"), symlink("d/a", ".."), symlink("d/a2", "a/.."), symlink("d/b", "a2/../outside"),
         file("d/b/secret", b"x")],
        "link to nowhere",
    ),
    "link loop": ([symlink("a", "b"), symlink("b", "a"), file("a/x", b"x")], "cannot be unpacked"),
    "long chain of links": (
        [symlink(f"l{n}", f"l{n + 1}") for n in range(60)] + [symlink("l60", UP), file("l0/secret", b"x")],
        "cannot be unpacked",
    ),
    "link of /proc": ([symlink("p", "/proc/self/root"), file("p/secret", b"x")], "link to nowhere"),
    "write through a link to a file": ([symlink("s", f"{UP}/secret"), file("s", b"x")], {"s": b"x"}),
    "attributes through a link": ([symlink("s", f"{OUT}/directory"), directory("s", mode=0o777)], {}),
    "hard link outside": ([hard_link("h", f"{UP}/secret")], "'..'"),
    "hard link outside, absolute": ([hard_link("h", f"{OUT}/secret")], "does not exist"),
    "hard link through a link": ([symlink("l", OUT), hard_link("h", "l/secret"), file("h", b"x")], "does not exist"),
    "hard link to a link, then written": (
        [symlink("l", f"{OUT}/secret"), hard_link("h", "l"), file("h", b"x")], {"h": b"x"},
    ),
    "hard link to the root": ([hard_link("h", ".")], "does not exist"),
    "hard link to a directory": ([directory("d"), hard_link("h", "d")], "cannot be unpacked"),
    "hard link to itself": ([file("h", b"x"), hard_link("h", "h")], "does not exist"),
    "root entry is a link": ([symlink(".", OUT), file("secret", b"x")], "root may only be a directory"),
    "root entry is a hard link": ([hard_link("./", "x")], "root may only be a directory"),
    "root entry is a file": ([file(".", b"x")], "root may only be a directory"),
    "whiteout through a link": ([symlink("etc", OUT), file("etc/.wh.secret")], {}),
    "whiteout of the parent": ([directory("d"), file("d/.wh...")], "whiteout without a name"),
    "whiteout of itself": ([directory("d"), file("d/.wh..")], "whiteout without a name"),
    "whiteout of nothing": ([file(".wh.")], "whiteout without a name"),
    "whiteout with dot dot": ([file(f".wh.{UP}/secret")], {}),
    "whiteout of a name that is not there": ([file("a/.wh.b"), file("c", b"x")], {"c": b"x"}),
    "opaque mark on a link": ([symlink("etc", OUT), file("etc/.wh..wh..opq")], {}),
    "opaque mark with content": ([directory("d"), file("d/.wh..wh..opq", b"x" * 600), file("e", b"y")], {"e": b"y"}),
    "aufs bookkeeping": ([directory(".wh..wh.plnk"), file(".wh..wh.aufs"), file("a", b"x")], {"a": b"x"}),
    "device 0:0": ([device("w", 0, 0)], "0:0 device"),
    "device out of range": ([device("d", 4097, 0)], "device number"),
    "duplicate names": ([file("a", b"1"), symlink("a", OUT), file("a", b"2")], {"a": b"2"}),
    "directory becomes a link": (
        [directory("d"), file("d/x", b"1"), symlink("d", f"{UP}/directory"), file("d/x", b"2")], "link to nowhere",
    ),
    "directory becomes a link to another": (
        [directory("e"), directory("d"), file("d/x", b"1"), symlink("d", "e"), file("d/x", b"2")], {"e/x": b"2"},
    ),
    "file as a parent": ([file("f", b"x"), file("f/x", b"x")], "cannot be unpacked"),
    "empty link target": ([symlink("l", "")], "empty or too long target"),
    "deep": ([file("d/" * 300 + "x", b"x")], "levels"),
    "long component": ([file("n" * 256, b"x")], "more than 255 bytes"),
    "long name": ([file("/".join(["n" * 200] * 30), b"x")], "4095"),
    "unknown type": ([entry("s", b"Q")], "unknown type"),
    "owner -1": ([file("f", b"x", **pax(uid=str(0xFFFFFFFF)))], "user or group id"),
    "negative owner": ([file("f", b"x", **pax(uid="-1"))], "not decimal"),
    "time beyond reason": ([file("f", b"x", **pax(mtime="9" * 30))], {"f": b"x"}),
    "time before time": ([file("f", b"x", **pax(mtime="-5.5"))], {"f": b"x"}),
    "time that is none": ([file("f", b"x", **pax(mtime="soon"))], "not a number"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_stay_inside(name: str, root: Path, outside: Path) -> None:
    entries, expected = HOSTILE[name]
    before, mode = tree(outside), outside.stat().st_mode
    data = tar(*[aimed_at(info, outside) for info in entries])
    if isinstance(expected, str):
        with pytest.raises(ImageError, match=expected):
            unpacked(data, root)
    else:
        unpacked(data, root)
        for path, content in expected.items():
            assert (root / path).read_bytes() == content
            assert not (root / path).is_symlink()
    assert tree(outside) == before
    assert outside.stat().st_mode == mode
    assert sorted(os.listdir(root.parent)) == ["outside", "root"]


def aimed_at(info: Entry, outside: Path) -> Entry:
    """A copy of the entry whose OUT is the canary's real path."""
    copy = entry("", data=info.data)
    for key, value in vars_of(info).items():
        setattr(copy, key, value.replace(OUT, str(outside)) if isinstance(value, str) else value)
    return copy


def vars_of(info: Entry) -> dict[str, Any]:
    names = "name mode uid gid size mtime type linkname devmajor devminor pax_headers".split()
    return {name: getattr(info, name) for name in names}


def test_an_honest_archive(root: Path) -> None:
    done = unpacked(
        tar(
            directory("./", mode=0o711),
            directory("bin"),
            file("bin/tool", b"#!", mode=0o4755),
            hard_link("bin/other", "bin/tool"),
            symlink("sh", "/bin/tool"),
            entry("pipe", tarfile.FIFOTYPE, mode=0o600),
            directory("tmp", mode=0o1777),
            file("long/" + "n" * 150, b"x" * 100_000, mtime=1_234_567_890.5),
            file("ü\n", b""),
        ),
        root,
    )
    assert done.count == 9
    assert done.size_bytes == 100_002
    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    assert stat.S_IMODE((root / "bin/tool").stat().st_mode) == 0o4755
    assert (root / "bin/tool").stat().st_ino == (root / "bin/other").stat().st_ino
    assert os.readlink(root / "sh") == "/bin/tool"
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert (root / "long" / ("n" * 150)).stat().st_mtime_ns == 1_234_567_890_500_000_000
    assert stat.S_IMODE((root / "long").stat().st_mode) == 0o755
    assert (root / "bin").stat().st_mtime == 1_700_000_000
    assert (root / "ü\n").exists()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_long_names(format: int, root: Path) -> None:
    name = "d" * 90 + "/" + "f" * 90
    entries = [file(name, b"x")]
    if format != tarfile.USTAR_FORMAT:
        entries += [file("e" * 120 + "/" + "g" * 200, b"y"), symlink("l", "t" * 200)]
    unpacked(tar(*entries, format=format), root)
    assert (root / name).read_bytes() == b"x"
    assert format == tarfile.USTAR_FORMAT or os.readlink(root / "l") == "t" * 200


def test_links_inside_lead_where_they_say(root: Path) -> None:
    """A merged /usr: entries below the link land behind it, absolute or relative."""
    unpacked(
        tar(directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), symlink("lib64", "/usr/lib"),
            file("lib/a", b"1"), file("lib64/b", b"2")),
        root,
    )  # fmt: skip
    assert (root / "usr/lib/a").read_bytes() == b"1"
    assert (root / "usr/lib/b").read_bytes() == b"2"


def test_a_directory_is_merged_and_anything_else_replaced(root: Path) -> None:
    unpacked(
        tar(
            directory("d"),
            file("d/kept", b"1"),
            directory("d", mode=0o700),
            file("f", b"1"),
            directory("f"),
            file("f/x", b"2"),
        ),
        root,
    )
    assert (root / "d/kept").exists()
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o700
    assert (root / "f/x").read_bytes() == b"2"


def test_a_directory_that_became_a_link_leads_where_the_link_says(root: Path) -> None:
    """What was opened or noted of the directory is not meant any more: neither where to write, nor its time."""
    unpacked(
        tar(
            directory("x", mtime=5),
            directory("d", mtime=7),
            directory("d/in", mtime=8),
            file("d/a"),
            symlink("d", "x"),
            file("d/b", b"2"),
            directory("d/in", mtime=9),
        ),
        root,
    )
    assert tree(root) == {
        "d": ("link", b"x"), "x": ("directory", b""), "x/b": ("file", b"2"), "x/in": ("directory", b""),
    }  # fmt: skip
    assert ((root / "x").stat().st_mtime, (root / "x/in").stat().st_mtime) == (5, 9)


def test_a_directory_that_became_a_file_and_one_again(root: Path) -> None:
    unpacked(tar(directory("d", mtime=7), file("d/a"), file("d"), directory("d", mtime=9), file("d/b")), root)
    assert set(tree(root)) == {"d", "d/b"} and (root / "d").stat().st_mtime == 9


def test_whoever_stops_it_hears_so(root: Path) -> None:
    event = threading.Event()
    event.set()
    with pytest.raises(unpack.Stopped):
        unpacked(tar(file("a")), root, stop=event)
    assert tree(root) == {}


def test_whiteouts_of_the_layer_s_own_files(root: Path) -> None:
    unpacked(tar(directory("d"), file("d/x", b"1"), file("d/.wh.x"), file("y", b"2")), root)
    assert tree(root) == {"d": ("directory", b""), "y": ("file", b"2")}


def test_extended_attributes(root: Path) -> None:
    headers = {
        f"SCHILY.xattr.{name}": "v"
        for name in ("user.mine", "user.overlay.opaque", "trusted.overlay.redirect")
    }
    unpacked(tar(file("f", b"x", pax_headers=headers)), root)
    assert set(os.listxattr(root / "f")) <= {"user.mine"}
    for name in (
        b"trusted.overlay.opaque",
        b"user.overlay.redirect",
        b"security.selinux",
        b"system.posix_acl_access",
        b"user\0x",
    ):
        assert not nodes.keeps_xattr(name)
    assert nodes.keeps_xattr(b"security.capability")


def test_global_pax_headers_change_nothing(root: Path) -> None:
    """Docker ignores them; a reader that does not would see another tree."""
    data = tar(file("a", b"x"))
    header = tarfile.TarInfo.create_pax_global_header({"path": "b", "SCHILY.xattr.user.x": "y"})
    unpacked(header + data, root)
    assert tree(root) == {"a": ("file", b"x")}


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1024, 1500])
def test_truncated(cut: int, root: Path) -> None:
    data = tar(file("a", b"x" * 1000))
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        unpacked(data[:cut] if cut % 512 else data[: cut - 1], root)


def test_not_a_tar(root: Path) -> None:
    with pytest.raises(ImageError, match="not a tar archive"):
        unpacked(b"this is no archive" * 100, root)
    with pytest.raises(ImageError, match="not a tar archive, or damaged: it is 18 bytes long"):
        unpacked(b"this is no archive", root)


def header_with(**fields: bytes) -> bytes:
    """A header of a file `a` with raw bytes at places of it, and the right checksum."""
    places = {"size": 124, "mode": 100, "uid": 108, "mtime": 136}
    block = bytearray(tar(file("a"), format=tarfile.USTAR_FORMAT)[:512])
    for name, value in fields.items():
        block[places[name] : places[name] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": b"\xff" * 12}, "negative"),
        ({"size": b"\x80" + b"\x00" * 2 + b"\x7f" * 9}, "truncated"),
        ({"size": b"99999999999\0"}, "octal"),
        ({"uid": b"zzzzzzz\0"}, "octal"),
    ],
)
def test_numbers_that_are_none(fields: dict[str, bytes], reason: str, root: Path) -> None:
    with pytest.raises(ImageError, match=reason):
        unpacked(header_with(**fields) + bytes(1024), root)


@pytest.mark.parametrize(
    ("mtime", "seconds"),
    [
        (b"00000000012\0", 10),
        (b"\xff" * 12, 0),  # a second before 1970
        (b"\x80" + b"\x7f" * 11, 1 << 34),
        (b"\x80" + bytes(7) + b"\x01\0\0\0", 1 << 24),
    ],
)
def test_times_are_kept_within_what_file_systems_store(mtime: bytes, seconds: int) -> None:
    (found,) = tarstream.entries(stream_of(header_with(mtime=mtime) + bytes(1024)))
    assert found.mtime_ns == seconds * 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("1.5", 1_500_000_000), ("0.1234567899", 123_456_789), ("-1", 0), ("-0.5", 0), ("9" * 39, 10**9 << 34)],
)  # fmt: skip
def test_times_of_pax(text: str, nanoseconds: int) -> None:
    (found,) = tarstream.entries(stream_of(tar(file("a", pax_headers={"mtime": text}))))
    assert found.mtime_ns == nanoseconds


def test_huge_extension_headers_are_not_read() -> None:
    """An 8 GiB name: refused by its size, before any of it is read into memory."""
    block = bytearray(header_with(size=b"%011o\0" % (8 << 30)))
    for kind in (b"x", b"g", b"L", b"K"):
        block[156:157] = kind
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        with pytest.raises(ImageError, match="extension header of 8589934592 bytes"):
            list(tarstream.entries(stream_of(bytes(block) + bytes(2048))))


def test_endless_extension_headers_end() -> None:
    one = tarfile.TarInfo.create_pax_global_header({"comment": "x"})
    with pytest.raises(ImageError, match="in a row"):
        list(tarstream.entries(stream_of(one * 100)))


@pytest.mark.parametrize(
    "record", [b"5 a=b\n", b"7 a=bc\n", b"x a=b\n", b"99 a=b\n", b"0 a=b\n", b"6 ab=", b"6 abc\n"]
)
def test_broken_pax_records(record: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    data = info.tobuf() + record.ljust(512, b"\0") + tar(file("a"))
    if record == b"7 a=bc\n":
        assert len(list(tarstream.entries(stream_of(data)))) == 1
    else:
        with pytest.raises(ImageError, match="PAX record"):
            list(tarstream.entries(stream_of(data)))


def test_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 3)
    with pytest.raises(ImageError, match="more than 3 entries"):
        unpacked(tar(*[file(str(n)) for n in range(5)]), root)
    bomb = compressed(tar(file("zeros", bytes(5_000_000))))
    assert len(bomb) < 20_000
    with pytest.raises(ImageError, match="more than 1000000 bytes"):
        list(tarstream.entries(stream_of(bomb, limit_bytes=1_000_000)))


@pytest.mark.parametrize("seed", range(10))
def test_damaged_archives_raise_nothing_else(seed: int, root: Path, outside: Path) -> None:
    """Random bytes of a good archive are changed: it is unpacked or refused, never an accident."""
    dice = random.Random(seed)
    good = tar(
        directory("d"),
        file("d/a", b"x" * 700),
        symlink("l", "d"),
        hard_link("h", "d/a"),
        file("n" * 150, b"y"),
    )
    before = tree(outside)
    for _ in range(40):
        data = bytearray(good)
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        for at in range(0, len(data) - 512, 512):  # repair checksums, to get past them
            if dice.random() < 0.9 and data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
        try:
            unpacked(bytes(data), root)
        except ImageError:
            pass
        layers.remove_tree(str(root))
        root.mkdir()
    assert tree(outside) == before


# ── compression ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "pack", [bytes, compressed, lambda data: compressed(data[:700]) + compressed(data[700:])]
)
def test_compression_is_told_by_content(pack: Any) -> None:
    data = tar(file("a", b"x" * 3000))
    stream = stream_of(pack(data))
    assert [each.name for each in tarstream.entries(stream)] == [b"a"]
    assert stream.drain() == digest(data)


def test_the_digest_covers_what_follows_the_end_mark() -> None:
    data = tar(file("a")) + b"after the end"
    stream = stream_of(data)
    list(tarstream.entries(stream))
    assert stream.drain() == digest(data)


def test_broken_gzip() -> None:
    data = compressed(tar(file("a", os.urandom(50_000))))
    with pytest.raises(ImageError, match="truncated"):
        stream_of(data[:-9]).drain()
    damaged = bytearray(data)
    damaged[20_000] ^= 0xFF
    with pytest.raises(ImageError, match="not valid gzip"):
        stream_of(bytes(damaged)).drain()
    with pytest.raises(ImageError, match="not valid gzip"):
        stream_of(data + b"garbage").drain()
    assert stream_of(data + bytes(100)).drain().startswith("sha256:")


@pytest.mark.parametrize(("head", "kind"), [(b"\x04\x22\x4d\x18xx", "lz4"), (b"PK\x03\x04xx", "zip")])
def test_other_compressions_are_named(head: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=kind):
        stream_of(head + bytes(100)).drain()


PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_compression(kind: str) -> None:
    """Whole, in two parts (as parallel packers write them), cut off, followed by something, damaged."""
    pack, data = PACKERS[kind], tar(file("a", os.urandom(50_000)), file("b", bytes(600_000)))
    packed = pack(data)
    assert stream_of(packed).drain() == digest(data)
    assert stream_of(pack(data[:700]) + pack(data[700:])).drain() == digest(data)
    for cut in (7, 20_000, len(packed) - 1):
        with pytest.raises(ImageError, match=r"truncated|not valid"):
            stream_of(packed[:cut]).read_exactly(len(data) + 1)
    with pytest.raises(ImageError, match=f"not valid {kind}"):
        stream_of(packed[:20] + b"\xff" * 40 + packed[60:]).drain()
    with pytest.raises(ImageError, match=f"not valid {kind}"):
        stream_of(packed + b"garbage" * 10).drain()


@pytest.mark.parametrize("kind", PACKERS)
def test_bombs(kind: str) -> None:
    """What inflates beyond the limit is refused when the limit is reached, not when memory is full."""
    bomb = PACKERS[kind](bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(ImageError, match="more than 1000000 bytes"):
        stream_of(bomb, limit_bytes=1_000_000).drain()
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_dictionaries_of_gigabytes_are_not_made() -> None:
    options = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20}]
    packer = lzma.LZMACompressor(
        lzma.FORMAT_XZ, filters=[{**options[0], "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    )
    data = packer.compress(b"x") + packer.flush()
    with pytest.raises(ImageError, match="not valid xz: Memory usage limit"):
        stream_of(data).drain()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(ImageError, match="the pip package zstandard is missing") as caught:
        stream_of(b"\x28\xb5\x2f\xfd" + bytes(100)).drain()
    assert "pip install zstandard" in caught.value.hint
    with pytest.raises(ImageError, match="compressed with xz, which this Python cannot read"):
        stream_of(b"\xfd7zXZ\0" + bytes(100)).drain()


# ── removal ────────────────────────────────────────────────────────────────────────────────────────


def test_remove_tree_follows_nothing(root: Path, outside: Path) -> None:
    (root / "d").mkdir()
    (root / "d/l").symlink_to(outside)
    (root / "d/f").write_text("x")
    (root / "locked").mkdir(mode=0)
    before = tree(outside)
    layers.remove_tree(str(root))
    layers.remove_tree(str(root))
    assert not root.exists()
    assert tree(outside) == before


def test_remove_tree_of_a_link(root: Path, outside: Path) -> None:
    (root / "l").symlink_to(outside)
    layers.remove_tree(str(root / "l"))
    assert outside.exists() and not (root / "l").is_symlink()


def test_chain_ids() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    chain = layers.chain_ids([first, second])
    assert chain == ["1" * 64, digest(f"{first} {second}".encode())[7:]]
    assert layers.chain_ids([second])[0] != chain[1]


def test_real_depth_is_limited(root: Path) -> None:
    """A name behind a link begins where the link leads: short names make directories of any depth."""
    whole = "/".join(["d"] * 200)
    entries = [file(f"{whole}/f"), symlink("l", whole)]
    unpacked(tar(*entries, file("l/" + "/".join(["d"] * 55) + "/f")), root)
    for last in (file("l/" + "/".join(["e"] * 58) + "/f"), directory("l/" + "/".join(["g"] * 60))):
        with pytest.raises(ImageError, match="it would be deeper than 256 directories"):
            unpacked(tar(symlink("l", whole), last), root)
    # and a whiteout on the way makes it no deeper
    steps = [entry for number in range(57, 70) for entry in (
        file("l/" + "/".join(["h"] * number) + "/.wh.x"), file("l/" + "/".join(["h"] * number) + "/f"))]  # fmt: skip
    with pytest.raises(ImageError, match="it would be deeper than 256 directories"):
        unpacked(tar(symlink("l", whole), *steps), root)


def test_a_real_path_is_limited(root: Path) -> None:
    whole = "/".join(["d" * 250] * 14)
    with pytest.raises(ImageError, match="or 3600 bytes"):
        unpacked(tar(file(f"{whole}/f"), symlink("l", whole), file("l/" + "x" * 250 + "/y/z")), root)


def test_directories_that_are_not_listed_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "MAX_ENTRIES", 100)
    with pytest.raises(ImageError, match="more than 100 entries"):
        unpacked(tar(*[file(f"{number}/" + "a/" * 30 + "f") for number in range(10)]), root)


def test_replaced_directories_are_forgotten_at_once(root: Path) -> None:
    """12,000 of them took 14 s: each looked at the times of all."""
    count = 12_000
    dirs = [make(f"d{number}") for make in (directory, file) for number in range(count)]
    data, began = tar(*dirs), os.times().user
    unpacked(data, root)
    assert os.times().user - began < 6  # without the file system's share, which is the greater one
    assert len(os.listdir(root)) == count


def test_times_of_what_was_replaced(root: Path) -> None:
    """They are not set on what is found by the same name in the end."""
    other = directory("other", mtime=1_000_000_000)
    inner = directory("other/b", mtime=1_000_000_000)
    replaced = [
        directory("a", mtime=2_000_000_000),
        directory("a/b", mtime=2_000_000_000),
        symlink("a", "other"),
    ]
    unpacked(tar(other, inner, *replaced), root)
    assert os.stat(root / "other/b").st_mtime == 1_000_000_000 == os.stat(root / "other").st_mtime


def test_remove_tree_of_any_depth(root: Path) -> None:
    fd = os.open(root, os.O_PATH)
    for _ in range(5000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    try:
        layers.remove_tree(str(root))
        assert not root.exists()
    finally:  # pytest's own removal has no such depth
        subprocess.run(["rm", "-rf", str(root)], check=True)

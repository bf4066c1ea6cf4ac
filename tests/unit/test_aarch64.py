"""The C parts on aarch64: they compile without a warning, and what needs no kernel of its own runs under qemu-user.

Also here, for both machines: every number that is written down in csrc/ and in linux.py because a C library's headers
lack it is the one in the kernel's headers. Some differ between machines (O_DIRECTORY, O_NOFOLLOW, O_LARGEFILE ...):
those must come from the headers, and a number written down for one of them fails here.
"""

from __future__ import annotations

import ast
import re
import struct
import subprocess
from pathlib import Path

import pytest

import build_backend
import fuzz_seeds
import fuzzing

pytestmark = pytest.mark.timeout(300)
CROSS = "aarch64-linux-gnu-gcc"
EM_AARCH64 = 183
on_aarch64 = pytest.mark.needs("aarch64")
LINUX = Path(__file__).resolve().parents[2] / "runtime/pyrun/linux.py"
HEADERS = """linux/audit.h linux/bpf.h linux/capability.h linux/close_range.h linux/fcntl.h linux/ioprio.h
linux/keyctl.h linux/magic.h linux/memfd.h linux/mempolicy.h linux/mount.h linux/netlink.h
linux/openat2.h linux/personality.h
linux/pidfd.h linux/prctl.h linux/sched.h linux/seccomp.h linux/stat.h linux/time_types.h asm/ioctls.h""".split()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static binary for aarch64, by the C library of Debian's cross compiler."""
    product = tmp_path_factory.mktemp("aarch64") / "pyrun-undo"
    sources = sorted(str(path) for path in fuzzing.CSRC.glob("*.c") if path.name != "shim.c")
    link = build_backend.STATIC_LINK.format(build_backend.PAGE_BYTES["aarch64"]).split()
    done = run(CROSS, *build_backend.WARNINGS, "-Werror", *build_backend.STATIC, f"-I{fuzzing.CSRC}", *sources,
               *link, "-o", str(product))  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    warnings = [line for line in done.stderr.splitlines() if "warning" in line]
    assert not warnings, warnings
    return product


@on_aarch64
def test_it_compiles(binary: Path) -> None:
    header = binary.read_bytes()[:20]
    assert header[:6] == b"\x7fELF\x02\x01" and int.from_bytes(header[18:20], "little") == EM_AARCH64


@on_aarch64
def test_kernels_with_pages_of_64_kb_can_map_it(binary: Path) -> None:
    """Two segments of one page could not have rights of their own. man 5 elf: Elf64_Ehdr, Elf64_Phdr."""
    data = binary.read_bytes()
    offset, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, offset + size * number) for number in range(count)]
    aligned = [header[7] for header in headers if header[0] == 1]  # PT_LOAD
    assert len(aligned) > 1 and set(aligned) == {65536}


@on_aarch64
def test_the_shim_compiles(tmp_path: Path) -> None:
    source = str(fuzzing.CSRC / "shim.c")
    done = run(
        CROSS, *build_backend.WARNINGS, "-Werror", "-fPIC", "-c", source, "-o", str(tmp_path / "shim.o")
    )
    assert done.returncode == 0, done.stderr[-4000:]


@on_aarch64
def test_where_ids_would_have_16_bits_it_does_not(tmp_path: Path) -> None:
    """The names of their system calls would be those of old ones."""
    done = run(CROSS, "-mabi=ilp32", "-fsyntax-only", str(fuzzing.CSRC / "main.c"))
    assert done.returncode and "pyrun is for 64-bit machines" in done.stderr


def test_no_assembly() -> None:
    found = [
        path.name for path in fuzzing.CSRC.rglob("*.[chS]") if re.search(r"\basm\b|__asm", path.read_text())
    ]
    assert not found


@on_aarch64
@pytest.mark.parametrize("target", ["plan", "numbers"])
def test_decoders_under_random_inputs(tmp_path: Path, target: str) -> None:
    """UBSan traps; AddressSanitizer does not run under qemu. The same target with a bug in it: see tests/fuzz."""
    compiler = (CROSS, "-static", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    program = fuzzing.build(target, tmp_path / "build", compiler=compiler)
    seeds = fuzz_seeds.write(target, tmp_path / "seeds")
    done = fuzzing.fuzz(program, 1, 1, seeds, tmp_path / "finding", prefix=("qemu-aarch64",))
    assert done.returncode == 0, f"{done.stdout}{done.stderr[-2000:]}"
    inputs, edges = map(int, re.findall(r"(\d+) inputs, (\d+) edges", done.stdout)[0])
    assert inputs > 100 and edges > 30, done.stdout


@on_aarch64
def test_an_undo_list(binary: Path, tmp_path: Path) -> None:
    """In a directory of its own. Below one level remove.c needs openat2, which qemu of Debian 12 does not know."""
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    for number in range(300):
        (tree / f"file{number}").write_text("x")
    (tree / "link").symlink_to("/etc")
    for name in ("named", "renamed", "stays"):
        (tmp_path / name).write_text("abc\nmore\n")
    (tmp_path / "directory").mkdir()
    words = [
        f"guard\t{tmp_path}/named\tother", f"unlink\t{tmp_path}/stays", "end", f"guard\t{tmp_path}/named\tabc",
        f"unlink-if\t{tmp_path}/renamed\tabc", f"unlink-if\t{tmp_path}/stays\tother", "end", f"rmtree\t{tree}",
        f"rmdir\t{tmp_path}/directory", f"unlink\t{tmp_path}/gone", f"unlink\t{tmp_path}/named",
        f"unlink\t{tmp_path}/list",
    ]  # fmt: skip
    (tmp_path / "list").write_text("".join(f"{word}\n" for word in words))
    done = run("qemu-aarch64", "-0", "pyrun-undo", str(binary), str(tmp_path / "list"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["stays"]


@on_aarch64
def test_an_undo_list_that_is_none(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("unlink\trelative\nbogus\t/x\nnetlink\t0\t1234\n")
    done = run("qemu-aarch64", "-0", "pyrun-undo", str(binary), str(tmp_path / "list"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 3, done.stderr


# ── numbers that are written down ──────────────────────────────────────────────────────────────────


def written_down() -> dict[str, tuple[str, str]]:
    """Name -> (number, where) of every constant of csrc/ and linux.py."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(fuzzing.CSRC.rglob("*.[ch]")):
        for name, number in re.findall(
            r"^#define ([A-Z][A-Z0-9_]+) \(?((?:0x)?[0-9a-fA-F]+)U?L*\)?(?:\s|$)",
            path.read_text(),
            re.MULTILINE,
        ):
            found[name] = number, path.name
    for node in ast.parse(LINUX.read_text()).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id.isupper()
        ):
            found[node.targets[0].id] = ast.unparse(node.value), LINUX.name
    return found


def compiled(compiler: str, lines: list[str], tmp_path: Path) -> list[int]:
    """The numbers of those *lines* (from 0) the compiler complains of."""
    source = tmp_path / "constants.c"
    top = ["#define _GNU_SOURCE", *(f"#include <{header}>" for header in HEADERS), ""]
    source.write_text("\n".join(top + lines) + "\n")
    done = run(compiler, "-std=gnu11", "-fsyntax-only", "-fmax-errors=0", str(source))
    wrong = [int(number) - len(top) - 1 for number in re.findall(rf"{source}:(\d+):\d+: error", done.stderr)]
    assert all(number >= 0 for number in wrong), done.stderr[:2000]
    return sorted(set(wrong))


@pytest.mark.parametrize("compiler", ["gcc", pytest.param(CROSS, marks=on_aarch64)])
def test_constants_are_the_kernels(compiler: str, tmp_path: Path) -> None:
    constants = written_down()
    names = sorted(constants)
    unknown = compiled(
        compiler, [f"long long known_{name} = (long long)({name});" for name in names], tmp_path
    )
    known = [name for number, name in enumerate(names) if number not in unknown]
    assert len(known) > 25, known
    checks = [f'_Static_assert(({name}) == ({constants[name][0]}), "");' for name in known]
    wrong = [known[number] for number in compiled(compiler, checks, tmp_path)]
    assert not wrong, [(name, *constants[name]) for name in wrong]


@pytest.mark.parametrize("compiler", ["gcc", pytest.param(CROSS, marks=on_aarch64)])
def test_layouts_are_the_kernels(compiler: str, tmp_path: Path) -> None:
    """The structures csrc/ declares itself, by their sizes and the offsets it counts on."""
    expected = {
        "sizeof(struct open_how)": 24, "sizeof(struct mount_attr)": 32, "sizeof(struct clone_args)": 88,
        "__builtin_offsetof(struct clone_args, cgroup)": 80, "__builtin_offsetof(struct statx, stx_mnt_id)": 144,
        "sizeof(struct nlmsghdr)": 16, "sizeof(struct nlmsgerr)": 20, "sizeof(struct seccomp_data)": 64,
        "__builtin_offsetof(struct seccomp_data, arch)": 4, "sizeof(struct __user_cap_data_struct)": 12,
        "sizeof(unsigned long)": 8, "sizeof(void *)": 8, "__BYTE_ORDER__": 1234,
    }  # fmt: skip
    lines = [f'_Static_assert({what} == {value}, "");' for what, value in expected.items()]
    assert not [list(expected)[number] for number in compiled(compiler, lines, tmp_path)]
    assert compiled(compiler, ['_Static_assert(sizeof(struct open_how) == 25, "");'], tmp_path) == [0]


@on_aarch64
def test_a_number_of_the_other_machine_would_be_found(tmp_path: Path) -> None:
    check = ['_Static_assert(O_DIRECTORY == 0x10000, "");', '_Static_assert(O_PATH == 0x200000, "");']
    assert compiled("gcc", check, tmp_path) == []
    assert compiled(CROSS, check, tmp_path) == [0]

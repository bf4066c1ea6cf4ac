"""The build backend (PEP 517): what `pip install .` runs; no setuptools, no setup.py.

A wheel is a zip file with three text files of metadata, so it is written here directly:

    runtime/pyrun/**          -> pyrun/                      the package
    images/*.yaml             -> pyrun/recipes/              the image recipes
    csrc/{shim,birth}.c       -> pyrun/_shim.abi3.so         cffi API mode: the compiler checks every prototype
    csrc/bundle*.py           -> pyrun/hot.<cache tag>.*     the modules of the hot path in one file a command
    csrc/*.c but shim.c       -> bin/pyrun, bin/pyrun-oci    the static binary, by musl (else the C library's)

What shim.h and ops.h hold is written once, for C and Python: the text between `/* cdef-begin */` and
`/* cdef-end */` in shim.h is given to cffi as it is, every `#define OP_X n` in ops.h becomes a constant.

Needs a compiler and headers; whatever is missing is named in one line with its Debian package.
"""

from __future__ import annotations

import base64
import ctypes.util
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "runtime" / "pyrun"
COMMANDS = ("pyrun", "pyrun-oci")

WARNINGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter"]
SECTIONS = ["-ffunction-sections", "-fdata-sections", "-fno-reorder-functions"]  # the linker keeps our order
STATIC = ["-static", "-Os", "-fno-asynchronous-unwind-tables", *SECTIONS]
STATIC_LINK = "-Wl,--gc-sections -Wl,-z,separate-code,-z,max-page-size={} -Wl,--build-id=none -s"
PAGE_BYTES = {"aarch64": 65536}  # kernels there may have such pages; elsewhere 16384, see _link_order

# what is looked for -> the Debian package that holds it
_HEADERS = {"sys/capability.h": "libcap-dev", "linux/openat2.h": "linux-libc-dev", "stdio.h": "libc6-dev"}


# ── the hooks pip calls ────────────────────────────────────────────────────────────────────────────


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    """Nothing beyond pyproject's `requires`; the first hook called, so missing tools are reported here."""
    check_tools()
    return []


def build_wheel(
    wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None
) -> str:
    """Build everything and write the wheel; returns its file name (PEP 517)."""
    check_tools()
    project = read_project()
    with tempfile.TemporaryDirectory(prefix="pyrun-build-") as scratch:
        contents = package_files() | generated_files(Path(scratch), project)
        name = f"{project['file_name']}-{wheel_tag()}.whl"
        write_wheel(Path(wheel_directory) / name, contents, project)
    return name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object = None) -> str:
    """Write METADATA alone, so that pip need not build everything to learn of the dependencies."""
    project = read_project()
    info = Path(metadata_directory) / f"{project['file_name']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(metadata_text(project))
    return info.name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Pack the sources into a tar file; returns its name (PEP 517)."""
    project = read_project()
    base = str(project["file_name"])
    wanted = ["pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "runtime", "csrc", "images"]
    with tempfile.TemporaryDirectory(prefix="pyrun-build-") as scratch:
        info = Path(scratch) / "PKG-INFO"
        info.write_text(metadata_text(project))
        with tarfile.open(Path(sdist_directory) / f"{base}.tar.gz", "w:gz") as archive:
            archive.add(info, f"{base}/PKG-INFO")
            for entry in wanted:
                if (ROOT / entry).exists():
                    archive.add(ROOT / entry, f"{base}/{entry}", filter=_without_caches)
    return f"{base}.tar.gz"


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    hidden = "__pycache__" in entry.name or "/." in entry.name
    return None if hidden or entry.name.endswith((".pyc", ".so")) else entry


# ── what must be there ─────────────────────────────────────────────────────────────────────────────


def check_tools() -> None:
    """End with one line that names the missing Debian packages, if any are missing."""
    missing = missing_packages()
    if missing:
        sys.exit(f"pyrun: to build this, first run: apt-get install {' '.join(missing)}")


def missing_packages() -> list[str]:
    """The Debian packages without which the build or the program would fail; [] when all is there."""
    compiler = shutil.which(c_compiler())
    missing = [] if compiler else ["gcc", "libc6-dev"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        own = "python3-dev" if sys.executable.startswith("/usr") else f"python3.{sys.version_info[1]}-dev"
        missing.append(own)
    if compiler:
        for header, package in _HEADERS.items():
            probe = [compiler, "-E", "-x", "c", "-include", header, "/dev/null"]
            if subprocess.run(probe, capture_output=True).returncode:
                missing.append(package)
    if not ctypes.util.find_library("seccomp"):
        missing.append("libseccomp2")
    return missing


def c_compiler() -> str:
    """The C compiler's name: $CC, else cc."""
    return os.environ.get("CC", "cc")


# ── the compiled parts ─────────────────────────────────────────────────────────────────────────────


def generated_files(scratch: Path, project: dict[str, object]) -> dict[str, tuple[bytes, int]]:
    """Compile the shim, the static binary and the bundle; returns archive name -> (content, mode)."""
    files: dict[str, tuple[bytes, int]] = {}
    files["pyrun/_shim.abi3.so"] = build_shim(scratch).read_bytes(), 0o755
    binary = build_static(scratch).read_bytes()
    for command in COMMANDS:
        files[f"{project['file_name']}.data/scripts/{command}"] = binary, 0o755
    sys.path.insert(0, str(CSRC))
    import bundle

    try:
        files |= {f"pyrun/{name}": (data, 0o644) for name, data in bundle.build(PACKAGE).items()}
    except SyntaxError as problem:
        sys.exit(f"pyrun: {problem.filename}:{problem.lineno}: {problem.msg}")
    return files


def cdef() -> str:
    """The declarations for cffi, taken from shim.h and ops.h (see above)."""
    header = (CSRC / "shim.h").read_text()
    declarations = _between(header, r"/\* cdef-begin \*/", r"/\* cdef-end \*/")
    names = re.findall(r"^#define (OP_\w+) ", (CSRC / "ops.h").read_text(), re.MULTILINE)
    return declarations + "".join(f"\n#define {name} ..." for name in names) + "\n"


def _between(text: str, begin: str, end: str) -> str:
    return "\n".join(re.findall(f"{begin}(.*?){end}", text, re.DOTALL))


def build_shim(scratch: Path) -> Path:
    """Generate and compile pyrun._shim for the limited API: one file for every Python from 3.11 on."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(cdef())
    ffi.set_source("pyrun._shim", '#include "shim.h"\n#include "ops.h"\n')
    glue, product = scratch / "_shim.c", scratch / "_shim.abi3.so"
    ffi.emit_c_code(str(glue))
    sources = [str(glue), str(CSRC / "shim.c"), str(CSRC / "birth.c")]
    flags = ["-shared", "-fPIC", "-O2", "-std=gnu11", f"-I{CSRC}", f"-I{sysconfig.get_paths()['include']}"]
    _compile([c_compiler(), *flags, *sources, "-s", "-o", str(product)])
    return product


def _link_order() -> list[str]:
    """The sources, and where the C library is linked: monitor and library, init, what runs once a start or a host.

    The kernel maps files in windows of 64 kB and more: what lies beside a function that is used counts as memory of its
    process. max-page-size keeps constants out of them; waiting.c cuts them off behind the monitor and its library.
    """
    groups: dict[str, list[str]] = {"monitor": [], "init": [], "once": []}
    for path in sorted(CSRC.glob("*.c")):
        family = path.stem.partition("_")[0]
        once = family in ("launcher", "quick", "hand", "birth", "rootless", "guard")
        if family != "shim":
            groups["once" if once else "init" if family == "init" else "monitor"].append(str(path))
    return [*groups["monitor"], "-lc", *groups["init"], *groups["once"]]


def build_static(scratch: Path, extra: tuple[str, ...] = ()) -> Path:
    """Compile the static binary `pyrun`: with musl when it is there, else with the C library and a notice."""
    link = STATIC_LINK.format(PAGE_BYTES.get(os.uname().machine, 16384)).split()
    product = scratch / "pyrun"
    compiler = musl_compiler(scratch)
    if not compiler:
        print(
            "pyrun: musl-gcc not found (apt-get install musl-tools): the binary will be larger and use more memory"
        )
        compiler = [c_compiler()]
    _compile([*compiler, *WARNINGS, *extra, *STATIC, f"-I{CSRC}", *_link_order(), *link, "-o", str(product)])
    return product


def musl_compiler(scratch: Path) -> list[str] | None:
    """The musl-gcc command with the kernel's headers, which it hides together with the C library's."""
    compiler = shutil.which("musl-gcc")
    if not compiler:
        return None
    headers = scratch / "kernel-headers"
    headers.mkdir(exist_ok=True)
    machine = next(iter(glob.glob("/usr/include/*-linux-gnu/asm")), "/usr/include/asm")
    targets = {"linux": "/usr/include/linux", "asm": machine, "asm-generic": "/usr/include/asm-generic"}
    for name, target in targets.items():
        if not (headers / name).is_symlink():
            (headers / name).symlink_to(target)
    return [compiler, "-isystem", str(headers)]


def _compile(command: list[str]) -> None:
    if subprocess.run(command).returncode:
        sys.exit(f"pyrun: the compiler failed: {' '.join(command)}")


# ── the wheel ──────────────────────────────────────────────────────────────────────────────────────


def package_files() -> dict[str, tuple[bytes, int]]:
    """The package's own files and the image recipes: archive name -> (content, mode)."""
    files: dict[str, tuple[bytes, int]] = {}
    for path in sorted(PACKAGE.rglob("*")):
        inside = path.relative_to(PACKAGE)
        hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
        if path.is_file() and not hidden and path.suffix not in (".pyc", ".so"):
            files[f"pyrun/{inside}"] = path.read_bytes(), 0o644
    for path in sorted((ROOT / "images").glob("*.yaml")):
        files[f"pyrun/recipes/{path.name}"] = path.read_bytes(), 0o644
    return files


def wheel_tag() -> str:
    """Every Python from 3.11 on, this machine's architecture; the bundle is an extra for the Python that built it."""
    machine = re.sub(r"[-.]", "_", sysconfig.get_platform())
    return f"cp311-abi3-{machine}"


def read_project() -> dict[str, object]:
    """[project] of pyproject.toml, with `file_name` (name-version as archives spell it) added."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table["file_name"] = f"{str(table['name']).replace('-', '_')}-{table['version']}"
    return table


def metadata_text(project: dict[str, object]) -> str:
    """The METADATA (or PKG-INFO) file."""
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Summary: {project['description']}", f"License: {project['license']}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {each}" for each in _strings(project, "dependencies")]
    lines += [f"Classifier: {each}" for each in _strings(project, "classifiers")]
    readme = ROOT / str(project["readme"])
    text = readme.read_text() if readme.exists() else ""
    return "\n".join([*lines, "Description-Content-Type: text/markdown", "", text])


def _strings(project: dict[str, object], key: str) -> list[str]:
    value = project.get(key)
    return [str(each) for each in value] if isinstance(value, list) else []


def write_wheel(path: Path, contents: dict[str, tuple[bytes, int]], project: dict[str, object]) -> None:
    """Write *contents* (archive name -> (bytes, mode)) and the metadata as a wheel."""
    info = f"{project['file_name']}.dist-info"
    wheel = f"Wheel-Version: 1.0\nGenerator: pyrun\nRoot-Is-Purelib: false\nTag: {wheel_tag()}\n"
    contents[f"{info}/METADATA"] = metadata_text(project).encode(), 0o644
    contents[f"{info}/WHEEL"] = wheel.encode(), 0o644
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in contents.items():
            _write_entry(archive, name, data, mode)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        _write_entry(archive, f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode(), 0o644)


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name)  # with zip's earliest date, so that equal sources give equal wheels
    entry.external_attr = (0o100000 | mode) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


if __name__ == "__main__":  # `build_backend.py missing` for the Makefile
    print(*missing_packages())

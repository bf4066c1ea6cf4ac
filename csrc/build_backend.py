"""The build backend (PEP 517): what `pip install .` runs; no setuptools, no setup.py.

A wheel is a zip file with a few text files of metadata, so it is written directly (archives.py):

    runtime/pyrun/**          -> pyrun/                      the package
    images/*.yaml             -> pyrun/recipes/              the image recipes
    csrc/{shim,birth,...}.c   -> pyrun/_shim.abi3.so         cffi API mode: the compiler checks every prototype
    csrc/bundle*.py           -> pyrun/hot.<cache tag>.*     the modules of the hot path in one file a command
                                 pyrun/home/                 what the interpreter reads before them
    csrc/interpreter/*.c      -> pyrun/home/python3-*        the planner's own interpreter, where it can be had
    csrc/*.c but shim.c       -> bin/pyrun, bin/pyrun-oci    the static binary, by musl (else the C library's)

What shim.h and ops.h hold is written once, for C and Python: the text between `/* cdef-begin */` and
`/* cdef-end */` in shim.h is given to cffi as it is, every `#define OP_X n` in ops.h becomes a constant.

Needs a compiler and headers; whatever is missing is named in one line with its Debian package.
"""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import archives
import bundle
import interpreter_build

CSRC = Path(__file__).resolve().parent
INCLUDE = Path("/usr/include")
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
    project = archives.read_project()
    with tempfile.TemporaryDirectory(prefix="pyrun-build-") as scratch:
        contents = archives.package_files() | generated_files(Path(scratch), project)
        name = f"{project['file_name']}-{archives.wheel_tag()}.whl"
        archives.write_wheel(Path(wheel_directory) / name, contents, project)
    return name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: object = None) -> str:
    """Write the wheel's .dist-info alone, so that pip need not build everything to learn of the dependencies."""
    project = archives.read_project()
    info = Path(metadata_directory) / f"{project['file_name']}.dist-info"
    info.mkdir()
    for name, data in archives.metadata_files(project).items():
        (info / name).write_bytes(data)
    return info.name


def build_sdist(sdist_directory: str, config_settings: object = None) -> str:
    """Pack the sources into a tar file; returns its name (PEP 517)."""
    return archives.write_sdist(Path(sdist_directory), archives.read_project())


# ── what must be there ─────────────────────────────────────────────────────────────────────────────


def check_tools() -> None:
    """End with one line that names the missing Debian packages, if any are missing."""
    python, header = os.path.realpath(sys.executable), Path(sysconfig.get_paths()["include"], "Python.h")
    if not python.startswith("/usr/bin/") and not header.exists():
        sys.exit(f"pyrun: to build this, {python} needs its own headers: there is no {header}")
    missing = missing_packages()
    if missing:
        sys.exit(f"pyrun: to build this, first run: apt-get install {' '.join(missing)}")


def missing_packages() -> list[str]:
    """The Debian packages without which the build or the program would fail; [] when all is there."""
    compiler = shutil.which(c_compiler())
    missing = [] if compiler else ["gcc", "libc6-dev"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing.append(f"python3.{sys.version_info[1]}-dev")
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
    interpreter = interpreter_build.build(scratch, c_compiler())
    if interpreter:
        files[interpreter_build.name()] = interpreter.read_bytes(), 0o755
    try:
        files |= {f"pyrun/{name}": (data, 0o644) for name, data in bundle.build(archives.PACKAGE).items()}
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
    sources = [str(glue), *[str(CSRC / f"{name}.c") for name in ("shim", "birth", "remove", "complain")]]
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
        once = family in ("launcher", "quick", "warm", "birth", "rootless", "guard")
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
    targets = {name: INCLUDE / name for name in ("linux", "asm-generic")} | {"asm": machine_headers(compiler)}
    for name, target in targets.items():
        if not (headers / name).is_symlink():
            (headers / name).symlink_to(target)
    return [compiler, "-isystem", str(headers)]


def machine_headers(compiler: str) -> Path:
    """The kernel's headers for the compiler's target: Debian 13 has those of every architecture side by side."""
    done = subprocess.run([compiler, "-print-multiarch"], capture_output=True, text=True, check=False)
    found = INCLUDE / done.stdout.strip() / "asm"  # nothing is printed where there is but one architecture
    if not found.is_dir():
        sys.exit(f"pyrun: to build this, first run: apt-get install linux-libc-dev (there is no {found})")
    return found


def _compile(command: list[str]) -> None:
    if subprocess.run(command).returncode:
        sys.exit(f"pyrun: the compiler failed: {' '.join(command)}")

"""What pip is given: the contents of the wheel and of the sdist, and their metadata (build_backend.py)."""

from __future__ import annotations

import base64
import hashlib
import re
import sysconfig
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "runtime" / "pyrun"


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


# ── the sdist ──────────────────────────────────────────────────────────────────────────────────────


def write_sdist(directory: Path, project: dict[str, object]) -> str:
    """Pack the sources into a tar file; returns its name."""
    base = str(project["file_name"])
    wanted = ["pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "runtime", "csrc", "images"]
    with tempfile.TemporaryDirectory(prefix="pyrun-build-") as scratch:
        info = Path(scratch) / "PKG-INFO"
        info.write_text(metadata_text(project))
        with tarfile.open(directory / f"{base}.tar.gz", "w:gz") as archive:
            archive.add(info, f"{base}/PKG-INFO")
            for entry in wanted:
                if (ROOT / entry).exists():
                    archive.add(ROOT / entry, f"{base}/{entry}", filter=_without_caches)
    return f"{base}.tar.gz"


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    hidden = "__pycache__" in entry.name or "/." in entry.name
    return None if hidden or entry.name.endswith((".pyc", ".so")) else entry


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


def metadata_files(project: dict[str, object]) -> dict[str, bytes]:
    """What is in the .dist-info, but for RECORD: name -> content."""
    wheel = f"Wheel-Version: 1.0\nGenerator: pyrun\nRoot-Is-Purelib: false\nTag: {wheel_tag()}\n"
    text = {"METADATA": metadata_text(project), "WHEEL": wheel, "LICENSE": (ROOT / "LICENSE").read_text()}
    return {name: content.encode() for name, content in text.items()}


def write_wheel(path: Path, contents: dict[str, tuple[bytes, int]], project: dict[str, object]) -> None:
    """Write *contents* (archive name -> (bytes, mode)) and the metadata as a wheel."""
    info = f"{project['file_name']}.dist-info"
    contents |= {f"{info}/{name}": (data, 0o644) for name, data in metadata_files(project).items()}
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

"""What pip makes of the sources: sdist, wheel, an installation that starts containers, in an environment and without.

Outside an environment there is no python3 beside the binary, and Debian's own pip says dist-packages. The libraries are
those of the tests' environment, linked: nothing is fetched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import build_backend
import interpreter_build
from command import Pyrun
from waiting import until

PYTHON = os.path.realpath(sys.executable)
VERSION = f"python3.{sys.version_info[1]}"


def python(*words: str, cwd: Path | None = None, **env: str) -> str:
    command = [sys.executable, *words]
    environment = os.environ | {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | env
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as pip does it: what the archive lacks, the wheel would lack."""
    base = tmp_path_factory.mktemp("wheel")
    archive = base / build_backend.build_sdist(str(base))
    subprocess.run(["tar", "-xf", str(archive), "-C", str(base)], check=True)
    (sources,) = base.glob("pyrun_container-*/csrc")
    python("-c", f"import build_backend; build_backend.build_wheel({str(base)!r})", cwd=sources)
    (made,) = base.glob("*.whl")
    return made


def install(wheel: Path, interpreter: str | Path, *words: str, **env: str) -> None:
    pip = ("-m", "pip", "--python", str(interpreter), "install", "-q", "--no-index", "--no-deps")
    python(*pip, *words, str(wheel), **env)


def environment(wheel: Path, place: Path) -> None:
    """An environment with pyrun, and with the libraries of the tests' own."""
    python("-m", "venv", "--without-pip", str(place))
    install(wheel, place / "bin/python3")
    (package,) = place.glob(f"lib/{VERSION}/site-packages/pyrun")
    for library in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not (package.parent / library.name).exists():
            (package.parent / library.name).symlink_to(library)


PATHS = "import sys; sys.path.append(sys.argv[1]); from pyrun import boot; boot.system_packages(); print(sys.path)"


@pytest.mark.parametrize("kind", ["venv", "prefix", "user"])
def test_an_installation_starts_containers(kind: str, wheel: Path, pyrun: Pyrun, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind != "venv" and not PYTHON.startswith("/usr/bin/"):
        pytest.skip(
            "the tests' Python is not the system's: outside an environment the launcher looks for that one"
        )
    if kind == "venv":
        python("-m", "venv", "--without-pip", str(place))
        install(wheel, place / "bin/python3")
    elif kind == "prefix":
        install(wheel, PYTHON, "--prefix", str(place))
    else:
        install(wheel, PYTHON, "--user", "--break-system-packages", PYTHONUSERBASE=str(place))
    (package,) = place.glob(f"**/lib/{VERSION}/*-packages/pyrun")
    (binary,) = place.glob("**/bin/pyrun")
    assert (binary.parent / "python3").exists() == (kind == "venv")
    for library in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not (package.parent / library.name).exists():
            (package.parent / library.name).symlink_to(library)
    # libraries that Debian has are not installed once more: where they are is looked, but for an environment
    seen = subprocess.run([PYTHON, "-IS", "-c", PATHS, str(package.parent)], capture_output=True, text=True)
    assert ("/usr/lib/python3/dist-packages" in seen.stdout) == (kind != "venv"), seen
    pyrun.binary = binary
    assert "version: 0.1.0" in pyrun.ok("version")
    assert pyrun.ok("run", "--help").startswith("Usage:  pyrun run")
    assert "10." in pyrun.ok("run", "--rm", "--net=bridge", "busybox", "ip", "-4", "addr", "show", "eth0")
    for file in package.glob("hot.*.pyc"):  # as for an interpreter of another version
        file.unlink()
    assert pyrun.ok("run", "--rm", "--net=none", "busybox", "echo", "cold") == "cold"


def test_of_packages_for_several_interpreters_those_of_the_one_that_is_here_are_taken(
    pyrun: Pyrun, tmp_path: Path
) -> None:
    """A system that is new leaves packages of its old interpreter behind: in /usr/local, in an environment."""
    for minor in range(4, 20):
        package = tmp_path / f"lib/python3.{minor}/site-packages/pyrun"
        package.mkdir(parents=True)
        (package / "boot_cold.py").write_text("print(__file__)")
    own = tmp_path / f"lib/{VERSION}"
    (tmp_path / "bin").mkdir()
    binary = shutil.copy(pyrun.binary, tmp_path / "bin/pyrun")

    def told() -> str:
        return subprocess.run([binary], capture_output=True, text=True, check=False).stdout

    if PYTHON.startswith("/usr/bin/"):
        assert told().startswith(f"{own}/"), "outside an environment: the system's"
    (tmp_path / "bin/python3").symlink_to(PYTHON)
    assert told().startswith(f"{own}/")
    shutil.rmtree(own)
    done = subprocess.run([binary], capture_output=True, text=True, check=False)
    assert done.returncode == 125 and "which is not here any more; install it again" in done.stderr


@pytest.mark.skipif(interpreter_build.library() is None, reason="this Python has no libpython.a")
def test_its_own_interpreter_serves_until_python_is_updated(
    wheel: Path, pyrun: Pyrun, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    environment(wheel, place)
    pyrun.binary = place / "bin/pyrun"
    assert json.loads(pyrun.ok("info", "--format", "json"))["interpreter"] == "own"
    (own,) = place.glob(f"lib/{VERSION}/site-packages/pyrun/home/python3-*")
    size, made = own.name.split("-")[1:]
    own.rename(own.with_name(f"python3-{size}-{int(made) - 1}"))  # as if the one that is installed were newer
    told = json.loads(pyrun.ok("info", "--format", "json"))["interpreter"]
    assert told.startswith("system, which is newer than the own one")


def test_what_runs_goes_on_when_pyrun_is_installed_anew(wheel: Path, pyrun: Pyrun, tmp_path: Path) -> None:
    """pip moves the old files away: pyrun-guard starts the resolver and repairs from the new ones."""
    place = tmp_path / "place"
    environment(wheel, place)
    pyrun.binary = place / "bin/pyrun"
    pyrun.ok("run", "-d", "--name", "web", "busybox", "httpd", "-f", "-h", "/etc")
    install(wheel, place / "bin/python3", "--force-reinstall")
    assert "10.77.0." in pyrun.ok("exec", "web", "nslookup", "web")
    subprocess.run(["nft", "delete", "table", "inet", "pyrun"], check=True)
    tables = ["nft", "list", "tables"]
    until(
        lambda: "table inet pyrun" in subprocess.run(tables, capture_output=True, text=True).stdout,
        "the rules, put back by the guard",
        timeout_s=20,
    )


def test_a_program_whose_file_is_gone_runs_nothing_beside_it(pyrun: Pyrun, tmp_path: Path) -> None:
    """What it was moved to before it was deleted may be below a directory that anybody writes to."""
    library = tmp_path / "lib" / VERSION / "site-packages/pyrun"
    library.mkdir(parents=True)
    (library / "boot_cold.py").write_text("print('planted')\n")
    program = tmp_path / "pip-uninstall-x/pyrun"
    program.parent.mkdir()
    shutil.copy(pyrun.binary, program)
    here = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    assert here.stdout == "planted\n", "that is where it looks while it is there"
    with program.open("rb") as file:
        program.unlink()
        words = [sys.executable, "-c", f"import os; os.execve({file.fileno()}, ['pyrun', 'version'], {{}})"]
        done = subprocess.run(words, pass_fds=[file.fileno()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "pyrun: cannot read /proc/self/exe: No such file or directory\n"

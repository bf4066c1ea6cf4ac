"""The installed command, as the system tests call it: the class behind the fixture `pyrun`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path


class Pyrun:
    """Runs pyrun with a store and run directory of its own.

    `pyrun("run", ...)` returns the CompletedProcess (text); `pyrun.ok(...)` asserts status 0 and returns the
    standard output without the last newline; `pyrun.fails(status, ...)` asserts that status and one line of
    error, and returns it; `pyrun.start(...)` returns a Popen that is killed after the test.
    """

    # hard links take an eighth of the time; nobody writes into a layer: the fixture `prepared_store` looks
    copies = "-al"

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary = binary
        self.directory = directory
        self.root = directory / "root"
        self.runroot = Path("/run") / f"pyrun-test-{os.getpid()}-{directory.name[-40:]}"
        self.env = os.environ | {
            "PYRUN_ROOT": str(self.root),
            "PYRUN_RUNROOT": str(self.runroot),
            "NO_COLOR": "1",
        }
        self._started: list[subprocess.Popen[str]] = []

    def copy_store(self, prepared: Path) -> None:
        """Make the store a copy of *prepared*; image.json names its layers by absolute paths."""
        subprocess.run(["cp", self.copies, str(prepared), str(self.root)], check=True)
        for path in self.root.glob("images/*/image.json"):
            text = path.read_text()
            path.unlink()
            path.write_text(text.replace(f'"{prepared}/', f'"{self.root}/'))

    def __call__(self, *args: str, input: str | None = None, timeout: float = 60, env: dict[str, str] | None = None,
                 cwd: str | Path | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run it to its end; standard input is *input* or empty."""
        return subprocess.run(
            [str(self.binary), *args], input=input if input is not None else "", capture_output=True, text=True,
            timeout=timeout, env=self.env | (env or {}), cwd=cwd, check=False,
        )  # fmt: skip

    def ok(
        self, *args: str, input: str | None = None, timeout: float = 60, env: dict[str, str] | None = None
    ) -> str:
        """Run it, expect success, return what it printed."""
        done = self(*args, input=input, timeout=timeout, env=env)
        assert done.returncode == 0, (
            f"pyrun {' '.join(args)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout.removesuffix("\n")

    def fails(
        self, status: int, *args: str, input: str | None = None, env: dict[str, str] | None = None
    ) -> str:
        """Run it, expect *status* and an error that begins with `pyrun: `; returns the error."""
        done = self(*args, input=input, env=env)
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.stderr.startswith("pyrun: "), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip()

    def start(
        self, *args: str, env: dict[str, str] | None = None, **options: object
    ) -> subprocess.Popen[str]:
        """Start it in the background, with pipes unless *options* (those of Popen) say otherwise."""
        pipes: dict[str, object] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [str(self.binary), *args], text=True, env=self.env | (env or {}), **(pipes | options)
        )
        self._started.append(process)
        return process

    def state(self, name: str) -> dict[str, object]:
        """state.json of a container that was started, by name."""
        ident = (self.root / "names" / name).read_text().splitlines()[0]
        state: dict[str, object] = json.loads(
            (self.runroot / "containers" / ident / "state.json").read_text()
        )
        return state

    def close(self) -> None:
        """Remove every container and network, and the run directory."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        kept = {path.name for base in (self.root, self.runroot) for path in (base / "containers").glob("*")}
        if kept:
            self("rm", "-f", *sorted(kept))
        if self.runroot.exists():
            self("system", "reconcile", "-q")
        if (self.runroot / "networks").is_dir() or Path("/sys/class/net/pyrun0").exists():
            self("network", "prune", "-f")
        shutil.rmtree(self.runroot, ignore_errors=True)

"""Runs in the guest: `run` of a busybox bundle by pyrun-oci and by runc, interleaved, with each cgroup driver.

usage: inside.py [--rounds N]       prints a Markdown table, writes /results/bench.json, status 1 over a limit

With systemd as PID 1 both drivers are measured, else cgroupfs alone. Both runtimes start the same bundle: `runc spec`
without a terminal, with a cgroup path that the driver understands. tests/bench/hyperfine.py is how it is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TESTS / "bench"))

from hyperfine import Effort, MeasuringFailed, Samples, interleaved  # noqa: E402

WORK = Path("/var/tmp/pyrun-vm-bench")
# driver -> (options, cgroupsPath, the largest ratio allowed)
DRIVERS = {
    "cgroupfs": ([], "/bench/NAME", 0.6),
    "systemd": (["--systemd-cgroup"], "system.slice:bench:NAME", 0.9),
}


def main(arguments: list[str]) -> int:
    """Measure, print, write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="inside.py", description="Measure run beside runc.")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args(arguments)
    root = make_root()
    drivers = [name for name in DRIVERS if name == "cgroupfs" or Path("/run/systemd/system").is_dir()]
    rows = [measure(name, root, options.rounds) for name in drivers]
    print("| `run` of a busybox bundle | pyrun-oci | runc | ratio | limit | |\n|---|---|---|---|---|---|")
    for row in rows:
        print("| {driver} | {pyrun} | {runc} | {ratio} | {limit} | {verdict} |".format(**row))
    Path("/results").mkdir(exist_ok=True)
    document = {"about": about(), "rows": rows}
    Path("/results/bench.json").write_text(json.dumps(document, indent=1))
    return 1 if any(row["verdict"] != "ok" for row in rows) else 0


def about() -> dict[str, str]:
    """What the figures depend on; tests/bench/performance.py puts it below the table."""
    said = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": platform.release(),
        "runc": said.split()[2],
    }


def measure(driver: str, root: Path, rounds: int) -> dict[str, object]:
    """One row of the table."""
    words, cgroup, limit = DRIVERS[driver]
    commands = {
        name: [
            program,
            *words,
            "--root",
            f"/run/bench-{name}",
            "run",
            "-b",
            bundle(driver, name, cgroup, root),
            name,
        ]
        for name, program in (("pyrun", str(Path(sys.executable).parent / "pyrun-oci")), ("runc", "runc"))
    }
    row: dict[str, object] = {"driver": driver, "pyrun": "", "runc": "", "ratio": "", "limit": limit}
    try:
        samples: dict[str, Samples] = interleaved(commands, Effort(rounds=rounds, runs=4, budget_s=120))
    except MeasuringFailed as problem:
        return row | {"verdict": f"not measured: {problem}"}
    ours, theirs = samples["pyrun"].median_ms, samples["runc"].median_ms
    verdict = "ok" if ours / theirs <= limit else "OVER"
    return row | {
        "pyrun": f"{ours:.0f} ms",
        "runc": f"{theirs:.0f} ms",
        "ratio": f"{ours / theirs:.2f}",
        "verdict": verdict,
    }


def make_root() -> Path:
    """A busybox root file system."""
    root = WORK / "rootfs"
    (root / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("proc", "sys", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    subprocess.run(["cp", "/bin/busybox", str(root / "bin/busybox")], check=True)
    if not (root / "bin/true").is_symlink():
        os.symlink("busybox", root / "bin/true")
    return root


def bundle(driver: str, name: str, cgroup: str, root: Path) -> str:
    """`runc spec`, with neither terminal nor shell; returns the directory."""
    directory = WORK / f"{driver}-{name}"
    directory.mkdir()
    subprocess.run(["runc", "spec", "--bundle", str(directory)], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["true"]}
    config["root"]["path"] = str(root)
    config["linux"]["cgroupsPath"] = cgroup.replace("NAME", name)
    (directory / "config.json").write_text(json.dumps(config))
    return str(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

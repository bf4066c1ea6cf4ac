"""The lines of --explain typed one after the other: what comes of them is a container."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from command import Pyrun

BY_HAND = [
    "--name",
    "web",
    "--net=bridge",
    "--tmpfs",
    "/t:size=1m",
    "-v",
    "/t/own",
    "-v",
    "/etc:/in a new/place:ro",
    "-m",
    "64m",
]
INSIDE = "busybox cat /proc/self/mountinfo; busybox hostname; busybox ping -c1 -W2 10.77.0.1"


@pytest.mark.parametrize("root", ["root", "one's own root"])
def test_a_container_by_hand(pyrun: Pyrun, prepared_store: Path, root: str) -> None:
    """Every line of the text is typed as it stands, but for those with `...`: the container is the one `run` makes."""
    pyrun.root = pyrun.directory / root
    pyrun.env["PYRUN_ROOT"] = str(pyrun.root)
    if root != "root":
        pyrun.copy_store(prepared_store)
    pyrun.ok("run", "--rm", "--net=bridge", "busybox", "true")  # whose rules are not to be typed
    text = pyrun.ok("run", "--dry-run", *BY_HAND, "busybox", "sleep", "60")
    typed: dict[str, list[str]] = {}
    for section in re.split(r"^  -- ", text, flags=re.MULTILINE)[1:]:
        lines = re.findall(r"^       sh   (.*)$", section, re.MULTILINE)
        typed[section.partition(" --")[0]] = [
            each for each in lines if "..." not in each or "unshare -m" in each
        ]
    variables = re.findall(r"^export (?:ID|ROOT)=.*$", text, re.MULTILINE)
    assert len(variables) == 2
    _type([*variables, *typed["planner, before"]])
    _type([*variables, 'cd "${ROOT%/*}"; touch hosts hostname resolv.conf'])
    (clone,) = typed["planner"]
    words = ["bash", "-c", "\n".join([*variables, f"exec {clone.replace('...', 'bash')}"])]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=pyrun.env | {"SHELL": "/bin/bash"}, text=True) as shell:  # fmt: skip
        assert shell.stdin and shell.stdout

        def there() -> str:
            print("echo there", file=shell.stdin, flush=True)
            return "".join(iter(shell.stdout.readline, "there\n"))

        try:
            print("cd /", *typed["init"], sep="\n", file=shell.stdin)
            told = there()
            pid = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().strip()
            _type([*variables, f"PID={pid}", *typed["planner, meanwhile"]])
            print(*typed["init, after GO"][:-1], INSIDE, sep="\n", file=shell.stdin)
            shown = there()
        finally:
            shell.stdin.close()  # bash has read all of it; PID 1 takes the others with it
            shell.wait(20)
            _type([*variables, "umount /run/netns/web; rm /run/netns/web; rmdir /sys/fs/cgroup/*/pyrun/$ID"])
    assert told == "", told
    assert "1 packets received" in shown
    by_hand, ours = map(_mounts, (shown, pyrun.ok("run", "--rm", *BY_HAND, "busybox", "sh", "-c", INSIDE)))
    assert by_hand == ours
    assert {"/", "/dev/pts", "/t", "/t/own", "/etc/hosts", "/proc/sys", r"/in\040a\040new/place"} <= set(ours)


def _type(lines: list[str]) -> None:
    subprocess.run(["bash", "-ec", "\n".join(lines)], check=True, timeout=20, stdout=subprocess.DEVNULL)


def _mounts(table: str) -> dict[str, tuple[str, set[str]]]:
    found = {}
    for line in re.findall(r"^\d+ \d+ \d+:.*$", table, re.MULTILINE):
        fields = line.split()
        separator = fields.index("-")
        if "cgroup" not in line:
            found[fields[4]] = (fields[separator + 1], set(fields[5].split(",")) - {"relatime"})
    return found

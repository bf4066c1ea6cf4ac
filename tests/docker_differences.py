#!/usr/bin/python3
"""Writes docs/docker-differences.md from the tables of commands and options: `make docs`.

What is missing comes from cli/unknown.py, which also words the errors; tests/peers/test_docker_words.py compares that
with the `--help` of Docker's client. tests/unit/test_docker_differences.py compares the page with what is written here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyrun.cli import tables, unknown
from pyrun.engine import ps

PAGE = Path(__file__).resolve().parents[1] / "docs" / "docker-differences.md"
# Of `docker ps`. Source: docs.docker.com/reference/cli/docker/container/ls/#filter
FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
SAKE = "for Docker's sake"

HEAD = """# Differences from Docker

pyrun's commands and options have Docker's names and meanings. This page lists what Docker 28.2 has and pyrun does not,
with what to use instead. Each command and option below is refused by name, and the error shows the same remedy.

Written by `make docs` from the tables in [cli/unknown.py](../runtime/pyrun/cli/unknown.py) and
[cli/tables.py](../runtime/pyrun/cli/tables.py); do not edit.
"""
COMMANDS = """\
pyrun has no named volumes, checkpoints, builds, Compose or Swarm. The management forms (`container start`,
`image push`) are missing with their short forms. `pyrun-oci` has `create`, `start`, `pause`, `resume` and `update`,
as runc has."""
BEHAVIOUR = """\
- **Volumes.** An image's `VOLUME` is a directory in the container's own layer. It is writable with `--read-only`
  too, begins with what the image has there, and is removed with the container. `-v` and `--tmpfs` go over it.
  `-v PATH` alone is one more such directory. One below a directory that `-v` or `--tmpfs` shows is mounted over it
  (`-v $PWD:/app -v /app/node_modules`); its mount point is made in the host's directory if it is missing.
- **Reboot.** Nothing of pyrun starts with the machine, unless a container is
  [a service](administration.md#as-a-service). A container with `--rm` that a reboot ended stays in `ps -a` until
  `pyrun rm`, `pyrun system reconcile` or a start with its name.
- **Detach keys.** Ctrl-P Ctrl-Q does not detach from a terminal.
- **Output formats.** `--format` is `table` or `json`; templates (`{{.Names}}`) are refused.
- **Filters of `ps`.** PRESENT.
  Missing and refused: MISSING.
- **Archives.** Layers and archives are read plain or compressed with gzip, zstd, xz or bzip2."""


def page() -> str:
    """The whole page."""
    lines = [HEAD, "## Commands", "", COMMANDS, ""]
    lines += ["| command | instead |", "|---|---|", *_rows(unknown.VERBS), ""]
    for verb, rows in unknown.OPTIONS.items():
        lines += [f"## Options of `{verb}`" if verb else "## Options before the command", ""]
        lines += ["| option | instead |", "|---|---|", *_rows(rows), ""]
    lines += ["## Options without effect", "", "Accepted, so that scripts written for Docker run.", ""]
    lines += ["| command | option | help |", "|---|---|---|", *_without_effect(), ""]
    return "\n".join([*lines, "## Behaviour", "", _behaviour(), ""])


def _rows(instead: dict[str, str]) -> list[str]:
    """A row a remedy, since many have the same: `restart`, `start`."""
    alike: dict[str, list[str]] = {}
    for names, remedy in instead.items():
        alike.setdefault(remedy, []).append(_names(names))
    return [
        f"| {', '.join(names)} | {remedy.replace('|', chr(92) + '|')} |" for remedy, names in alike.items()
    ]


def _names(names: str) -> str:
    """`--attach` `-a`; a command of two words is one name."""
    return " ".join(f"`{name}`" for name in (names.split() if names.startswith("-") else [names]))


def _without_effect() -> list[str]:
    return [
        f"| `{verb}` | {_names(' '.join(row[0]))} | {row[5]} |"
        for verb, (rows, *_) in tables.VERBS.items()
        for row in rows
        if SAKE in row[5]
    ]


def _behaviour() -> str:
    lists = {
        "PRESENT": [name for name in FILTERS if name in ps._FILTERS],
        "MISSING": [name for name in FILTERS if name not in ps._FILTERS],
    }
    text = BEHAVIOUR
    for word, names in lists.items():
        text = text.replace(word, ", ".join(f"`{name}`" for name in names))
    return text


if __name__ == "__main__":
    sys.stdout.write(page())

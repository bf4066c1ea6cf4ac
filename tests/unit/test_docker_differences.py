"""docs/docker-differences.md is what the tables of cli/unknown.py and cli/tables.py say."""

from __future__ import annotations

import docker_differences


def test_the_page_is_what_the_tables_say() -> None:
    assert docker_differences.PAGE.read_text() == docker_differences.page(), (
        "commands or options have changed: `make docs`"
    )


def test_rows_of_one_remedy_are_one() -> None:
    rows = {"--attach -a": "-i", "--pid": "leave it out", "--uts": "leave it out", "-n": "`ps | head`"}
    assert docker_differences._rows(rows) == [
        "| `--attach` `-a` | -i |",
        "| `--pid`, `--uts` | leave it out |",
        "| `-n` | `ps \\| head` |",
    ]

"""Texts from outside: a line of a terminal, a word of bash, a number."""

from __future__ import annotations

import random
import subprocess

import pytest

from pyrun import safe

SIGNS = "ab01 ~#!$`\"'\\\n\t\r\x01\x1b\x7f\x9b;&|<>(){}[]*?%=-+:,./éж日\u202e\U000e0001\udc80\udcff"


def test_visible() -> None:
    assert safe.visible("naïve 日本") == "naïve 日本"
    assert safe.visible("a\x1b[2J\nb\udcff\x9b\u202e") == "a\\x1b[2J\\nb\\udcff\\x9b\\u202e"


def test_what_is_typed_is_the_word_that_was_meant() -> None:
    """Bash is given random words, one by one and together, and hands back the bytes they are."""
    chance = random.Random(1)
    words = [
        "",
        "~",
        "$(id)",
        "a=b",
        "*",
        "!!",
        *["".join(chance.choices(SIGNS, k=chance.randrange(12))) for _ in range(400)],
    ]
    script = "printf '%s\\0' " + safe.shell_command(words)
    assert script.isprintable()
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True, cwd="/")
    assert done.stdout.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in words]
    assert done.stderr == b""


def test_plain_words_stay_as_they_are() -> None:
    assert safe.shell_command(["ip", "link", "set", "eth0.5", "mtu", 1500]) == "ip link set eth0.5 mtu 1500"
    assert safe.shell_word("a b") == "'a b'"


@pytest.mark.parametrize("text", ["0", "007", "18446744073709551615", "9" * safe.DIGITS_MAX])
def test_numbers(text: str) -> None:
    assert safe.is_number(text)
    assert int(text) >= 0 and float(text) < float("inf")


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "²", "٣", "1.5", "0x1", "9" * 41, "9" * 5000])
def test_what_is_no_number(text: str) -> None:
    assert not safe.is_number(text)

"""References: read as Docker reads them, refused when they could mean harm."""

from __future__ import annotations

import random

import pytest

from pyrun.errors import UsageError
from pyrun.store import images, references

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("index.docker.io/me/app:1", "docker.io/me/app:1", "me/app:1"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("host:5000/app:1", "host:5000/app:1", "host:5000/app:1"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("a.b/c", "a.b/c:latest", "a.b/c:latest"),
        ("a__b/c--d", "docker.io/a__b/c--d:latest", "a__b/c--d:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        ("app:V_1.2-x", "docker.io/library/app:V_1.2-x", "app:V_1.2-x"),
    ],
)
def test_parse(text: str, full: str, familiar: str) -> None:
    reference = references.parse(text)
    assert reference.full == full
    assert reference.familiar == familiar
    assert references.parse(familiar).full == full


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", "//", "a//b", "/a", "a/", "a:", "a:b:c", "a b", "a\n", "UPPER", "me/Upper", "-a", "a-", "a_-b",
        "a..b", "a___b", "a/../b", "../a", ".", "..", "a@", "a@sha256:12", f"a@{DIGEST.upper()}",
        "a@sha512:" + "0" * 128, f"a@{DIGEST}x", "a:" + "t" * 129, "a:.t", "a:-t", "a:t/../../x", "host:port/a",
        "host:70000/a", "host:/a", "ho_st.x/a", "-host.x/a", "host-.x/a", "host..x/a", ".x/a",
        "[::1/a", "[]/a", "a\0b", "a%2fb", "a" * 256, "é", "a/é", "file:///etc/passwd",
        "https://a/b", "a/" * 100 + "a" * 60,
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        references.parse(text)


def test_the_error_names_text_and_reason() -> None:
    with pytest.raises(UsageError, match=r"'Ubuntu': the name must be lower case"):
        references.parse("Ubuntu")


@pytest.mark.parametrize("seed", range(20))
def test_anything_is_read_or_refused(seed: int) -> None:
    """Words of likely and unlikely pieces: what is read can be written as a file name and read again."""
    dice = random.Random(seed)
    pieces = [
        "a",
        "b1",
        "Z",
        ".",
        "..",
        "-",
        "_",
        "/",
        ":",
        "@",
        DIGEST,
        "localhost",
        "5000",
        "%",
        "é",
        "\0",
        " ",
        "[::1]",
    ]
    read = 0
    for _ in range(500):
        text = "".join(dice.choices(pieces, k=dice.randint(1, 7)))
        try:
            reference = references.parse(text)
        except UsageError:
            continue
        read += 1
        check_file_name(reference)
    assert read > 5


def check_file_name(reference: references.Reference) -> None:
    quoted = references.quote(reference.full)
    assert "/" not in quoted and quoted not in (".", "..") and quoted.isascii() and len(quoted) < 250
    assert references.unquote(quoted) == reference.full
    assert references.parse(reference.full).full == reference.full


def test_digest_and_ids() -> None:
    assert references.is_digest(DIGEST)
    assert not references.is_digest(DIGEST[:-1])
    assert not references.is_digest("sha256:../" + "0" * 61)
    assert references.is_hex("beef") and not references.is_hex("") and not references.is_hex("BEEF")


def test_a_store_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's: said so, instead of "no such image"."""

    def denied(path: str) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(images.paths, "read", denied)
    with pytest.raises(UsageError, match="root's") as caught:
        images.find("busybox")
    assert "run as root" in caught.value.hint

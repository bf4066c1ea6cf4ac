"""Recipes: those that ship are sound, malformed ones are explained, and names find theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.errors import UsageError
from pyrun.store import bootstrap, platforms, recipes, references

SHIPPED = Path(__file__).resolve().parents[2] / "images"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYRUN_IMAGES", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes(path: Path) -> None:
    recipe = recipes.check(recipes.read_yaml(str(path)), str(path))
    assert recipe["about"], "a reader wants to know what it is"
    assert "latest" in recipe["tags"]
    if recipe["kind"] == "registry":
        assert references.parse(recipe["image"]).full == recipe["image"]
    else:
        assert recipe["config"]["Cmd"] and recipe["config"]["Env"][0].startswith("PATH=/")


def test_the_four_of_the_manual_are_there() -> None:
    assert {path.stem for path in SHIPPED.glob("*.yaml")} >= {"alpine", "busybox", "debian", "ubuntu"}


def test_names_and_tags(images: Path) -> None:
    (images / "mine.yaml").write_text("{kind: registry, image: 'quay.io/a/b:1', tags: [latest, '2']}")

    def kind(text: str) -> str:
        recipe = recipes.find(references.parse(text))
        return str(recipe["kind"]) if recipe else ""

    assert kind("mine") == kind("mine:2") == kind("docker.io/library/mine") == "registry"
    assert (
        kind("mine:3") == kind("me/mine") == kind("localhost/mine") == kind("mine@sha256:" + "0" * 64) == ""
    )
    assert "mine" in recipes.names()


def test_the_first_directory_wins(images: Path) -> None:
    (images / "busybox.yaml").write_text("{kind: registry, image: 'quay.io/x/y'}")
    recipe = recipes.find(references.parse("busybox"))
    assert recipe and recipe["kind"] == "registry" and recipe["path"] == str(images / "busybox.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a recipe is a mapping"),
        ("- a", "a recipe is a mapping"),
        ("kind: magic", "kind: 'magic' is none of embedded, bootstrap, registry"),
        ("{kind: registry}", "image: missing"),
        ("{kind: bootstrap}", "suite: missing"),
        ("{kind: embedded, program: [x]}", r"program: \['x'\] is not text"),
        ("{kind: registry, image: x, sut: y}", "sut: unknown field"),
        ("{kind: registry, image: x, tags: latest}", "tags: 'latest' is not a list"),
        ("{kind: registry, image: x, tags: [13]}", "tags: every item must be text"),
        ("{kind: registry, image: x, tags: ['../x']}", "tags: '../x' is not a plain word"),
        ("{kind: bootstrap, suite: x, include: ['-o=APT::x']}", "include: '-o=APT::x' is not a plain word"),
        ("{kind: registry, image: x, config: {Cmd: sh}}", "config.Cmd: 'sh' is not a list"),
        ("{kind: registry, image: x, config: {cmd: [sh]}}", "config.cmd: unknown field"),
        ("{kind: [", "not valid YAML"),
        ("a: &a [*a, *a]\nkind: *a", "is none of"),
        ("kind: !!python/name:os.system", "not valid YAML"),
    ],
)
def test_malformed(images: Path, text: str, reason: str) -> None:
    (images / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=reason) as caught:
        recipes.find(references.parse("bad"))
    assert str(images / "bad.yaml") in caught.value.message and "\n" not in caught.value.message


def test_mmdebstrap_s_command_line() -> None:
    words = bootstrap.command(
        {"suite": "trixie", "include": ["a", "b+c"], "mirror": "http://m/debian"}, "/x.tar"
    )
    assert words[:4] == ["unshare", "--mount", "--propagation", "private"]
    assert words[4] == "mmdebstrap" and "--include=a,b+c" in words and "--variant=minbase" in words
    assert words[-4:] == ["--", "trixie", "/x.tar", "http://m/debian"]


# ── platforms ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "full"),
    [("amd64", "linux/amd64"), ("linux/x86_64", "linux/amd64"), ("linux/arm64", "linux/arm64/v8"), ("arm64/v8", ""),
     ("linux/arm/v6", "linux/arm/v6"), ("arm", "linux/arm/v7"), ("linux/amd64/v1", "linux/amd64"),
     ("armhf", "linux/arm/v7"),
     ("linux", str(platforms.host())), ("", str(platforms.host())), ("bogus", ""), ("linux/bogus", ""),
     ("windows/amd64", ""), ("a/b/c/d", ""), ("linux/", ""), ("/", ""), ("li nux/x", "")],
)  # fmt: skip
def test_platforms(text: str, full: str) -> None:
    if full:
        assert str(platforms.parse(text)) == full
    else:  # arm64/v8 as well: that would be an operating system called arm64
        with pytest.raises(UsageError, match=f"--platform:? '{text}'"):
            platforms.parse(text)


@pytest.mark.parametrize(
    ("offered", "wanted", "rank"),
    [("amd64", "amd64", 0), ("amd64/v3", "amd64", -1), ("arm64", "arm64", 0), ("arm/v6", "arm/v7", 1),
     ("arm/v7", "arm/v6", -1),
     ("arm/v5", "arm/v7", 2), ("386", "amd64", 16), ("amd64", "386", -1), ("386", "arm64", -1), ("s390x", "amd64", -1)],
)  # fmt: skip
def test_which_platform_suits(offered: str, wanted: str, rank: int) -> None:
    have, want = (platforms.normal("linux", *text.split("/")) for text in (offered, wanted))
    assert platforms.rank(have, want) == rank


def test_this_machine_has_a_platform() -> None:
    assert platforms.host() == platforms.parse(None)
    assert platforms.rank(platforms.host(), platforms.host()) == 0

"""README and docs: short enough, and every link leads to a file and a heading that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for folder in ("", "docs", "images", "vagrant")
    for path in sorted((REPOSITORY / folder).glob("*.md"))
]
PAGES += sorted((REPOSITORY / "tests").rglob("README.md"))


def broken(page: Path) -> list[str]:
    """The relative links of *page* that lead nowhere; headings are named as GitHub names them."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if "://" not in link and (not target.exists() or (heading and heading not in headings(target))):
            found.append(link)
    return found


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not broken(page)


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Two `words`\n[a](page.md#two-words) [b](none.md) [c](#three) [d](https://example.org/x)\n"
    )
    assert broken(page) == ["none.md", "#three"]


def test_the_readme_is_short() -> None:
    """At most 200 lines; installing, running and the picture come first."""
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[:3] == [
        "Install",
        "Run",
        "The network",
    ]


def test_every_page_is_in_the_lists_of_pages() -> None:
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    for page, prefix in ((REPOSITORY / "README.md", "docs/"), (REPOSITORY / "docs/README.md", "")):
        assert pages <= set(re.findall(rf"\]\({prefix}([a-z-]+\.md)\) \|", page.read_text())), page


def test_a_glossary_has_a_line_a_term() -> None:
    rows = re.findall(
        r"^\| (?!term \|)(.+?) \| (.+) \|$", (REPOSITORY / "docs/glossary.md").read_text(), re.MULTILINE
    )
    terms = [term for term, _ in rows]
    assert len(terms) > 60 and len(terms) == len(set(terms))

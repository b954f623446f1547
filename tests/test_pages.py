"""README.md, CONTRIBUTING.md and the pages in docs/ hang together: links lead somewhere, the index has every page.

python tests/test_pages.py     writes the list of files in CONTRIBUTING.md anew, from the modules' docstrings
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCES = ROOT / "src" / "klieg"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [ROOT / "README.md", CONTRIBUTING, *sorted(DOCS.glob("*.md"))]

LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
LIST_OF_FILES = re.compile(r"^```text\nsrc/klieg/\n.*?^```\n", re.DOTALL | re.MULTILINE)


def links_of(page: Path) -> list[tuple[str, str]]:
    """(page, section) of each link to another page of ours; either may be empty."""
    return LINK.findall(page.read_text(encoding="utf-8"))


def anchors_of(page: Path) -> set[str]:
    """The names under which the page's sections can be linked to, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def list_of_files() -> Iterator[str]:
    """One line for each module: its name and the first line of its docstring."""
    yield "```text"
    folders = {path.parent for path in SOURCES.rglob("*.py")}
    for folder in sorted(folders, key=lambda folder: (len(folder.relative_to(SOURCES).parts), folder)):
        yield f"{folder.relative_to(ROOT)}/"
        for path in sorted(folder.glob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            yield f"    {path.name:<19} {docstring.partition(chr(10))[0]}"
    yield "```"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_the_page_leads_somewhere(page):
    for target, anchor in links_of(page):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors_of(there), f"{page.name} links to {target}#{anchor}"


def test_every_page_is_linked_from_the_index():
    linked = {target for target, _ in links_of(DOCS / "index.md")}
    assert [page.name for page in sorted(DOCS.glob("*.md")) if page.name not in {"index.md", *linked}] == []


def test_the_tests_that_show_a_difference_exist():
    rows = re.findall(r"\| `([a-z ]+)`: ([a-z ]+) \|$", (DOCS / "differences-from-ray.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    for name, sentence in rows:
        path = ROOT / "tests" / "conformance" / f"test_{name.replace(' ', '_')}.py"
        assert f"def test_{sentence.replace(' ', '_')}(" in path.read_text(encoding="utf-8"), f"{name}: {sentence}"


def test_the_list_of_files_is_that_of_the_sources():
    written = LIST_OF_FILES.search(CONTRIBUTING.read_text(encoding="utf-8"))
    assert written is not None
    assert written[0].splitlines() == list(list_of_files()), "run: python tests/test_pages.py"


if __name__ == "__main__":
    text = CONTRIBUTING.read_text(encoding="utf-8")
    CONTRIBUTING.write_text(LIST_OF_FILES.sub(lambda _: "\n".join(list_of_files()) + "\n", text), encoding="utf-8")

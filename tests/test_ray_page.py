"""The page on the Ray engine names every test that is skipped there, with its reason, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = re.compile(r'pytest\.mark\.not_on_ray\("(.*?)"\)\n(?:(?!(?:async )?def ).*\n)*?(?:async )?def test_(\w+)\(')
WHOLE_FILE = re.compile(r'^pytestmark = pytest\.mark\.not_on_ray\("(.*?)"\)', re.MULTILINE)


def skipped() -> set[tuple[str, str]]:
    """(reason, test) of every mark, as the page writes them."""
    found = set()
    for path in (ROOT / "tests" / "conformance").glob("test_*.py"):
        name, text = path.stem.removeprefix("test_").replace("_", " "), path.read_text(encoding="utf-8")
        found |= {(reason, f"`{name}`: all") for reason in WHOLE_FILE.findall(text)}
        text = WHOLE_FILE.sub("", text)
        found |= {(reason, f"`{name}`: {test.replace('_', ' ')}") for reason, test in MARK.findall(text)}
    return found


def written() -> set[tuple[str, str]]:
    page = (ROOT / "docs" / "ray-engine.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+? \| (`.+) \|$", page, re.MULTILINE)
    return {(reason, test) for reason, tests in rows for test in tests.split("; ")}


def test_the_page_lists_what_is_skipped_on_ray_and_nothing_else():
    assert len(skipped()) > 20
    assert written() == skipped()

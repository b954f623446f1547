"""Every example of the pages in docs/ runs, on every engine."""

import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


def examples():
    """(page, source at its own line numbers) of each example; its id names the page and the section."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            before = text[: found.start(1)]
            title = re.findall(r"^#+ (.*)", before, re.MULTILINE)[-1]
            source = "\n" * before.count("\n") + found[1]
            yield pytest.param(page, source, id=f"{page.stem}-{title.replace(' ', '-')}")


@pytest.mark.parametrize(("page", "source"), list(examples()))
def test_the_examples_of_the_pages_run(page, source):
    exec(compile(source, str(page), "exec"), {"__name__": "an_example"})

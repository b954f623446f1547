"""Every example of docs/util.md runs, on every engine."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "util.md"


def examples():
    """(title of its section, source at its own line numbers) of each example."""
    text = PAGE.read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        before = text[: found.start(1)]
        title = re.findall(r"^#+ (.*)", before, re.MULTILINE)[-1]
        yield pytest.param("\n" * before.count("\n") + found[1], id=title.replace(" ", "-"))


@pytest.mark.parametrize("source", list(examples()))
def test_the_examples_of_the_page_run(source):
    exec(compile(source, str(PAGE), "exec"), {"__name__": "an_example"})

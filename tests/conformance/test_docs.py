"""Every example of README.md, CONTRIBUTING.md and the pages in docs/ runs, on every engine, and prints what they say.

An example is a block fenced with ```python. It stands for itself: whoever copies it has all of it. It may await at the
top level, as in IPython. A block fenced with ```text right behind it is what it prints; `...` there is anything. Behind
```python local, an example needs worker processes; the others run on both engines, whatever their `init` says.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import klieg

pytestmark = pytest.mark.not_on_ray("the pages tell of one machine")

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

EXAMPLE = re.compile(
    r"^```python(?P<only_local> local)?\n(?P<source>.*?)^```\n(?:\n?^```text\n(?P<prints>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


def examples() -> Iterator[object]:
    """(source at its own line numbers, page, what it prints) of each example; its id names the page and the section."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in EXAMPLE.finditer(text):
            before = text[: found.start("source")]
            title = re.findall(r"^#+ (.*)", before, re.MULTILINE)[-1]
            source = "\n" * before.count("\n") + found["source"]
            marks = [pytest.mark.needs_process("it shows what processes do")] if found["only_local"] else []
            name = f"{page.stem}-{title.replace(' ', '-')}"
            yield pytest.param(page, source, found["prints"], marks=marks, id=name)


@pytest.fixture(autouse=True)
def klieg_runtime(engine, nothing_leaks, monkeypatch):
    """No runtime yet: an example starts its own, or leaves that to the first use. Either way on the test's engine."""
    monkeypatch.setattr(klieg, "init", functools.partial(klieg.init, engine=engine))
    yield
    klieg.shutdown()


def run(source: str, page: Path) -> None:
    code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {"__name__": "an_example"}
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, names))
    else:
        exec(code, names)


@pytest.mark.parametrize(("page", "source", "prints"), list(examples()))
def test_the_example_runs_and_prints_what_the_page_says(page, source, prints, capfd):
    if not re.search(r"\bklieg\.init\(", source):
        klieg.init()
    run(source, page)
    klieg.shutdown()
    if prints is not None:
        printed = capfd.readouterr().out
        assert doctest.OutputChecker().check_output(prints, printed, doctest.ELLIPSIS), printed

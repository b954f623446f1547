"""In a notebook, with a real kernel: prints of workers appear there, and a cell may await."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CELLS = [
    """
    import klieg

    klieg.init(num_cpus=1, logging_config=klieg.LoggingConfig())

    @klieg.remote
    class Shop:
        def sell(self, what):
            print("sold", what)
            return what

        async def ask(self):
            return "open"

    shop = Shop.remote()
    klieg.get(shop.sell.remote("a lamp"))
    """,
    "await shop.ask.remote()",
    "[name for name in dir(shop) if not name.startswith('_')]",
    "klieg.shutdown()",
]

PROGRAM = """
import json, sys, textwrap
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in json.loads(sys.argv[1])]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


def test_a_notebook_shows_results_and_what_workers_print(tmp_path):
    for needed in ("nbclient", "ipykernel"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    # A kernel that finds itself under pytest does not look at descriptor 1, and it is not.
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(CELLS)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**variables, "JUPYTER_RUNTIME_DIR": str(tmp_path), "IPYTHONDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    printed = "".join(one["text"] for cell in outputs for one in cell if one.get("name") == "stdout")
    results = ["".join(one["data"]["text/plain"] for one in cell if "data" in one) for cell in outputs]
    assert printed == "sold a lamp\n"
    assert results == ["'a lamp'", "'open'", "['ask', 'sell']", ""]

#!/usr/bin/env python3
"""Execute the notebooks of `notebooks/` on the run that RUN and STORE name.

    RUN=runs/demo-0123456789ab STORE=store python scripts/execute_notebooks.py OUT

The executed copies go to the folder OUT; the originals stay as they are and must hold no output. Exit code 1 if a cell fails, if a stored notebook
has outputs, or if there is no notebook at all.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
# Longest time for one cell, in seconds.
TIMEOUT = 300


def stored_outputs(notebook) -> int:
    """Number of code cells that carry an output or an execution count."""
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    return sum(bool(cell.outputs) or cell.execution_count is not None for cell in cells)


def execute(path: Path, out: Path) -> str | None:
    """Run one notebook in its own folder; the reason if it failed."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    if found := stored_outputs(notebook):
        return f"{found} cells are stored with output; clear them before you commit"
    try:
        NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(path.parent)}}).execute()
    except CellExecutionError as error:
        return str(error)
    finally:
        nbformat.write(notebook, out / path.name)
    return None


def main() -> int:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    # The notebooks run in their own folder: relative paths of the caller would not be found there.
    for name in ("RUN", "STORE"):
        os.environ[name] = str(Path(os.environ[name]).resolve())
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    failures = 0 if paths else 1
    if not paths:
        print("no notebooks found", file=sys.stderr)
    for path in paths:
        reason = execute(path, out)
        print(f"{path.name}: {'executed' if reason is None else reason}")
        failures += reason is not None
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

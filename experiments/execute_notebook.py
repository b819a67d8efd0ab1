"""Runs the cells of a notebook and stores what they show.

    python experiments/execute_notebook.py experiments/first_run.ipynb

No Jupyter is needed. A cell shows what it prints, its last expression unless a semicolon ends it, and the pyplot
figures that it leaves open.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "agg")


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with its code cells run in order, in one namespace, and their outputs stored.

    Args:
        notebook: Of nbformat 4, as read from its file. It is not changed.

    Raises:
        Exception: Whatever a cell raises.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = run_cell("".join(cell["source"]), namespace, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def run_cell(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What one cell shows, as outputs of nbformat 4.

    Args:
        source: Of the cell.
        namespace: Shared by the cells.
        count: Number of the cell.
    """
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), namespace)  # noqa: S102 - running it is the purpose
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), namespace)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
    if value is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        result = {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}
        outputs.append(result)
    return outputs + [_picture(png) for png in _figures()]


def _figures() -> list[bytes]:
    """The pyplot figures that are open, as PNG; they are closed."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    from matplotlib import pyplot

    pictures = []
    for number in pyplot.get_fignums():
        file = io.BytesIO()
        # Without the metadata, the version of matplotlib: the picture is of the run alone.
        pyplot.figure(number).savefig(file, format="png", dpi=80, metadata={"Software": None})
        pictures.append(file.getvalue())
    pyplot.close("all")
    return pictures


def _picture(png: bytes) -> dict[str, Any]:
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": ["<Figure>"]}
    return {"data": data, "metadata": {}, "output_type": "display_data"}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    """Run the notebook that is named, and write it."""
    path = Path(sys.argv[1])
    done = execute(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The notebook runs from its first cell to its last, and what it shows is what a run shows today."""

import base64
import importlib.util
import json
import re
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "experiments" / "first_run.ipynb"
STORED = json.loads(PATH.read_text(encoding="utf-8"))


def load_executor():
    spec = importlib.util.spec_from_file_location("execute_notebook", PATH.with_name("execute_notebook.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXECUTOR = load_executor()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The notebook, run now."""
    import matplotlib

    matplotlib.use("agg")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("notebook")
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.chdir(folder)
        yield EXECUTOR.execute(STORED)


def outputs(notebook):
    return {cell["id"]: cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"}


def plain(notebook, cell):
    return "".join(outputs(notebook)[cell][0]["data"]["text/plain"])


def numbers(text):
    return [float(word) for word in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", text)]


def test_the_stored_notebook_was_run_once_from_top_to_bottom():
    code = [cell for cell in STORED["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    assert len({cell["id"] for cell in STORED["cells"]}) == len(STORED["cells"])
    assert (STORED["nbformat"], STORED["nbformat_minor"]) == (4, 5)


def test_nothing_stored_tells_about_the_machine_that_ran_it():
    data = [output.get("data", output) for shown in outputs(STORED).values() for output in shown]
    text = json.dumps([{key: value for key, value in entry.items() if key != "image/png"} for entry in data])
    for part in (tempfile.gettempdir(), str(ROOT), str(Path.home()), " at 0x"):
        assert part not in text, part
    pictures = b"".join(base64.b64decode(entry["image/png"]) for entry in data if "image/png" in entry)
    assert b"Software" not in pictures


def test_every_cell_shows_what_it_showed(fresh):
    for cell, stored in outputs(STORED).items():
        shown = outputs(fresh)[cell]
        kinds = [[sorted(output.get("data", {})) for output in entry] for entry in (stored, shown)]
        assert kinds[0] == kinds[1], cell
        tables = [
            ["".join(output.get("data", {}).get("text/html", "")).count("<tr") for output in entry]
            for entry in (stored, shown)
        ]
        assert tables[0] == tables[1], cell


def test_the_claims_are_the_ones_stored(fresh):
    stored, shown = (numbers(plain(notebook, "claim-table")) for notebook in (STORED, fresh))
    assert len(stored) == 4
    assert shown == pytest.approx(stored, rel=1e-4)
    statements = [plain(notebook, "statement") for notebook in (STORED, fresh)]
    for statement in statements:
        assert statement.startswith(
            '"At the record level, the run is (3.000, 1e-05)-differentially private under'
        )
        assert "Not covered: " in statement


def test_the_model_learns_as_it_did_under_noise_of_its_own(fresh):
    lasts = [plain(notebook, "rounds").splitlines()[-1].split() for notebook in (STORED, fresh)]
    for _, number, accuracy, *_ in lasts:
        assert number == "20"
        assert float(accuracy) > 0.81, "always answering no is right for 0.764"
    assert float(lasts[0][2]) == pytest.approx(float(lasts[1][2]), abs=0.03)


def test_findings_the_folder_and_the_model_of_ones_own_are_as_stored(fresh):
    assert plain(fresh, "folder") == plain(STORED, "folder")
    for cell in ("findings", "unmeasured", "own"):
        tables = ["".join(outputs(notebook)[cell][0]["data"]["text/html"]) for notebook in (STORED, fresh)]
        rows = [re.findall(r"<td>((?:performance|fairness|robustness)\.\w+)</td>", table) for table in tables]
        assert rows[0], cell
        assert rows[0] == rows[1], cell
    for notebook in (STORED, fresh):
        assert numbers(plain(notebook, "tensors"))[0] > 0.93


def test_the_plot_is_a_picture():
    (output,) = outputs(STORED)["plot"]
    assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")


def test_the_executor_shows_what_jupyter_would():
    show = EXECUTOR.run_cell
    space = {}
    assert show("a = 3\nprint(a)", space, 1) == [{"name": "stdout", "output_type": "stream", "text": ["3\n"]}]
    assert show("a + 1", space, 2)[0]["data"] == {"text/plain": ["4"]}
    assert show("a + 1;", space, 3) == []
    assert show("None", space, 4) == []
    assert show("def f():\n    return a\nf()", space, 5)[0]["execution_count"] == 5
    with pytest.raises(ZeroDivisionError):
        show("1 / 0", space, 6)

"""``fedsafe data`` lists every task and describes the federation that a run would have."""

import pytest
import tomli_w
from typer.testing import CliRunner

from fedsafe.cli.data import data_app
from fedsafe.data.tasks import SHIPPED


def said(*argv: object) -> str:
    result = CliRunner().invoke(data_app, [str(word) for word in argv], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_list_has_every_task_with_its_facts():
    text = said("list")
    for name, shipped in SHIPPED.items():
        for fact in (name, shipped.kind, shipped.holders, shipped.source.name, shipped.source.url):
            assert fact in text


@pytest.mark.parametrize("evaluation", ["test", "held_out_clients", "client_validation"])
def test_a_federation_is_described_as_it_is_configured(tmp_path, evaluation):
    config = {
        "task": "digits",
        "data": {"evaluation": evaluation},
        "federation": {
            "clients": 10, "partition": {"name": "classes", "per_client": 2}, "held_out": 0.2, "client_validation": 0.1,
        },
    }  # fmt: skip
    (tmp_path / "digits.toml").write_text(tomli_w.dumps(config))
    text = said("describe", tmp_path / "digits.toml", "--out", tmp_path / "digits.png", "--seed", 3)
    assert "8 clients with" in text
    assert "belong to held-out clients" in text
    assert "own validation" in text
    assert {
        "test": "30 % of the digits",
        "held_out_clients": "2 of 10 clients",
        "client_validation": "10% of each",
    }[evaluation] in text
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")

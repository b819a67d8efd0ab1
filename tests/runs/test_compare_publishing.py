"""What publishing several runs costs a client, where the runs do not have the same clients."""

import pytest
from tiny_federation import config

from fedsafe.privacy.accounting import SampledGaussian, account
from fedsafe.runs.byzantine_cell import plain_release
from fedsafe.runs.compare import _may_change
from fedsafe.runs.comparison import Comparison
from fedsafe.runs.comparison_costs import counted_as, publishing
from fedsafe.runs.config import make_config
from fedsafe.runs.tuning_split import part_spec

NATURAL = {"name": "natural", "by": "writer"}


def compared(partition, **changes):
    base = make_config(config()).model_copy()
    base = base.model_copy(update={"federation": base.federation.model_copy(update={"partition": partition})})
    return Comparison(**{"base": base, "epsilons": (0.1, 0.3), "seeds": 2, **changes})


@pytest.mark.parametrize(
    ("partition", "changes", "told"),
    [
        ({"name": "iid"}, {}, True),
        ({"name": "dirichlet", "alpha": 1.0}, {}, True),
        ({"name": "contiguous", "sizes": {"name": "lognormal"}}, {}, True),
        ({"name": "contiguous"}, {}, False),
        ({"name": "iid"}, {"seeds": 1}, False),
        ({"name": "iid"}, {"seeds": 1, "grid": {"federation.clients": ["5", "6"]}}, True),
        (NATURAL, {}, False),
        (NATURAL, {"grid": {"federation.partition": ['{name="iid"}', '{name="natural"}']}}, True),
    ],
)
def test_a_client_that_is_another_in_each_run_is_told(partition, changes, told):
    comparison = compared(partition, **changes)
    assert (counted_as(comparison, "client") is not None) == told
    assert counted_as(comparison, "record") is None


def test_the_figure_for_clients_says_what_it_counts():
    run = SampledGaussian(rate=0.5, noise=20.0, count=3)
    claims = [{"unit": unit, "epsilon": 0.1, "delta": 1e-3} for unit in ("record", "client")]
    result = {
        "claims": claims,
        "groups": {"record": 1, "client": 1},
        "releases": {"record": [plain_release(run)], "client": [plain_release(run)]},
    }
    record, client = publishing(compared({"name": "iid"}), {"a": result, "b": result})
    assert record["epsilon"] == client["epsilon"] > 0.0
    assert record["counted"] is None
    assert "this is no bound" in client["counted"]


def test_the_best_of_several_has_a_figure_only_where_one_costs_most_at_every_order():
    def result(**changes):
        run = SampledGaussian(**{"rate": 0.5, "noise": 20.0, "count": 3, **changes})
        claim = {"unit": "record", "epsilon": account([run], 1e-5).epsilon, "delta": 1e-5}
        return {"claims": [claim], "groups": {"record": 1}, "releases": {"record": [plain_release(run)]}}

    comparison = compared(NATURAL, unit="record")
    alike, unlike = (
        publishing(comparison, {"a": result(), "b": other})[0]
        for other in (result(noise=9.0), result(noise=9.0, rate=0.25, count=12))
    )
    assert alike["best"] > max(claim["epsilon"] for claim in result(noise=9.0)["claims"])
    assert unlike["best"] is None
    assert unlike["epsilon"] > 0.0


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("digits", False),
        ({"name": "digits"}, False),
        ("mine:load", True),
        ({"name": "mine:load", "size": 3}, True),
        ({"path": "mine.csv", "schema": "mine.toml"}, True),
        (part_spec("digits", "kept", 0.3), False),
        (part_spec("mine:load", "kept", 0.3), True),
    ],
)
def test_records_of_the_users_own_may_change(task, told):
    """Cells of such a task are kept under a digest of the records."""
    assert _may_change(make_config(config()).model_copy(update={"task": task})) == told

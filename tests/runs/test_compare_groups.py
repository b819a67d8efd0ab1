"""Where a claim is for all that one person has, so is what publishing several runs costs."""

import pytest
from tiny_federation import config

import fedsafe.runs.compare as compare
from fedsafe.privacy.accounting import SampledGaussian, group_epsilon
from fedsafe.runs import make_config
from fedsafe.runs.comparison import Comparison


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    several = {"privacy__record__max_records_per_person": 3, "privacy__client__max_clients_per_person": 2}
    base = make_config(config(privacy__noise_key="seed", **several))
    comparison = Comparison(base=base, epsilons=(0.1, 0.3), seeds=2)
    return compare.compute_comparison(comparison, tmp_path_factory.mktemp("groups"))


def releases(body, unit):
    parts = [part for result in body.results for part in result["releases"][unit]]
    return [SampledGaussian(**{key: value for key, value in part.items() if key != "kind"}) for part in parts]


@pytest.mark.parametrize(("unit", "size", "delta"), [("record", 3, 1e-5), ("client", 2, 1e-3)])
def test_what_publishing_costs_is_for_all_that_one_person_has(body, unit, size, delta):
    (line,) = (line for line in body.body["publishing"] if line["unit"] == unit)
    assert line["group"] == size
    first, *rest = releases(body, unit)
    assert line["epsilon"] == pytest.approx(group_epsilon(first, delta, size, tuple(rest)))
    # Of one element alone it would be far less, and all runs cost more than any.
    assert line["epsilon"] > 1.5 * group_epsilon(first, delta, 1, tuple(rest))
    assert line["epsilon"] > max(s["bound"] for s in body.body["statements"] if s["unit"] == unit)
    assert f"for {size} {unit}s of one person" in line["accountant"]
    assert line["best"] is None

"""Which radius of an assessor's curve a comparison shows."""

import pytest

from fedsafe.runs.comparison_measures import measured


def finding(radius: float, norm: str, value: float) -> dict[str, object]:
    where = {"attack": "worst", "radius": radius, "norm": norm}
    return {"metric": "robustness.attacked_accuracy", "value": value, "interval": [0.0, 1.0], "where": where}


@pytest.mark.parametrize("order", [1, -1])
def test_radii_of_unlike_norms_have_no_middle(order):
    findings = [finding(radius, "linf", 1.0 - radius) for radius in (0.02, 0.05, 0.1)]
    findings += [finding(radius, "l2", 0.0) for radius in (0.25, 0.5, 1.0, 2.0)]
    (shown,) = [found for found in measured(findings[::order]) if found.key == "attacked"]
    assert shown.value == 0.95
    assert shown.title.endswith("radius 0.05")
    assert "linf" in shown.note

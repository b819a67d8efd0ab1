"""``fedsafe.assess(model, data)`` judges a model of one's own, and the package of that name stays a package."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from ray import cloudpickle
from tiny_federation import config, task
from torch import nn

import fedsafe as package
from fedsafe.assess import ASSESSORS, Subject
from fedsafe.errors import ConfigError, DataError, FedSafeError, ModelError
from fedsafe.findings import Metric, proportion, register_metric

POSITIVE = register_metric(
    Metric(
        name="labels.positive",
        unit="share",
        low=0.0,
        high=1.0,
        direction="higher",
        description="Positive labels.",
    )
)


class Labels:
    """Counts the positive labels that it was given to judge on."""

    name = "labels"

    def plan(self, subject, tier): ...

    def __call__(self, subject, *, rng, tier):
        y = subject.evaluation.y
        return [proportion(POSITIVE.name, int(y.sum()), len(y), data=tier)]


class Broken(Labels):
    name = "broken"

    def __call__(self, subject, *, rng, tier):
        raise RuntimeError("no luck")


@pytest.fixture
def line():
    """The model that labelled the tiny task, before one label in ten was turned."""
    model = nn.Linear(5, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 2.0, 0.0, 0.0, 0.0]]))
        model.bias.zero_()
    return model


def test_a_model_of_known_quality_is_found_to_be_so(line):
    frame = package.assess(line, task(evaluation=2000), assessors=["performance"], tier="cheap")
    row = frame[(frame["metric"] == "performance.accuracy") & (frame["status"] == "measured")].iloc[0]
    assert row["n"] == 2000
    low, high = row["interval"]
    assert low < 0.9 < high
    assert row["assessor"] == "performance"


def test_findings_are_those_that_a_run_would_make_and_repeat_with_the_seed(line):
    frames = [package.assess(line, task(), assessors=["performance", "fairness"], seed=3) for _ in range(2)]
    assert frames[0].to_json() == frames[1].to_json()
    assert set(frames[0]["assessor"]) == {"performance", "fairness"}
    assert {"metric", "where", "status", "value", "interval", "n", "bound", "detail"} <= set(
        frames[0].columns
    )


def test_the_model_is_left_as_it_was(line):
    line.train()
    before = {name: value.clone() for name, value in line.state_dict().items()}
    package.assess(line, task(), assessors=["performance", "robustness"], tier="cheap")
    assert line.training
    assert all(torch.equal(before[name], value) for name, value in line.state_dict().items())


def test_assessors_of_ones_own_are_run_and_a_broken_one_is_a_failed_finding(line):
    frame = package.assess(line, task(), assessors=[Labels(), f"{__name__}:Broken"], tier="cheap")
    labels, broken = frame.to_dict("records")
    assert labels["value"] == task().evaluation.y.mean()
    assert labels["data"] == "cheap"
    assert (broken["assessor"], broken["metric"], broken["status"]) == (
        "broken",
        "assess.completed",
        "failed",
    )
    assert "RuntimeError: no luck" in broken["detail"]["reason"]


def test_tensors_are_judged_with_what_is_public_about_them(line):
    given = task(evaluation=2000)
    tensors = tuple(
        torch.from_numpy(array) for part in (given.train, given.evaluation) for array in (part.x, part.y)
    )
    about = {"low": -1.0, "high": 1.0, "classes": ["no", "yes"]}
    frames = [
        package.assess(line, data, about=more, assessors=["performance"])
        for data, more in ((tensors, about), (given, None))
    ]
    values = [dict(zip(frame["metric"], frame["value"], strict=True)) for frame in frames]
    assert values[0]["performance.accuracy"] == values[1]["performance.accuracy"]


def test_a_run_trains_on_tensors_with_what_is_public_about_them(tmp_path):
    given = task()
    data = (torch.from_numpy(given.train.x), torch.from_numpy(given.train.y))
    values = config(rounds=1)
    with pytest.raises(ConfigError, match="`low` and `high`"):
        package.run(values, data=data, out=tmp_path / "out")
    with pytest.raises(ConfigError, match="data that is not given"):
        package.run(values, about={"low": 0}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    result = package.run(values, data=data, about={"low": -1, "high": 1}, out=tmp_path / "out")
    assert result.start.task["train_records"] + result.start.task["evaluation_records"] == len(given.train)


@pytest.mark.parametrize(
    ("model", "data", "error"),
    [
        (lambda x: x, task, ModelError),
        (nn.Linear(5, 1), lambda: (np.ones((4, 5)), np.ones(3)), FedSafeError),
        (nn.Linear(5, 1), lambda: (np.full((4, 5), np.nan), np.array([0, 1, 0, 1])), DataError),
    ],
)
def test_what_cannot_be_judged_is_refused(model, data, error):
    made = data()
    about = {"low": 0.0, "high": 1.0} if isinstance(made, tuple) else None
    with pytest.raises(error):
        package.assess(model, made, about=about)


def test_the_public_names_are_these():
    assert package.__all__ == ["assess", "compare", "open_run", "resume", "run"]
    assert all(callable(getattr(package, name)) for name in package.__all__)
    with pytest.raises(AttributeError, match="asses"):
        package.asses  # noqa: B018 - the look-up is what is tested


ORDERS = """
import sys
for order in (
    "import fedsafe; fedsafe.assess",
    "import fedsafe.assess",
    "from fedsafe.assess import Subject; import fedsafe",
    "import fedsafe.assess.base; import fedsafe",
    "import fedsafe; import fedsafe.assess.fairness.gaps",
    "from fedsafe import assess; import fedsafe",
    "from fedsafe import *; import fedsafe",
    "import fedsafe.runs; import fedsafe",
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "fedsafe"]:
        del sys.modules[name]
    space = {}
    exec(order, space)
    package = space["fedsafe"]
    assert callable(package.assess), order
    assert package.assess is sys.modules["fedsafe.assess"], order
    assert package.assess.base.Subject is package.assess.Subject, order
    assert "assess" not in space or space["assess"] is package.assess, order
print("every order")
"""


def test_every_order_of_imports_gives_a_package_that_can_be_called():
    done = subprocess.run([sys.executable, "-c", ORDERS], capture_output=True, text=True, check=False)
    assert done.stdout == "every order\n", done.stderr


def test_importing_fedsafe_alone_stays_cheap():
    script = "import fedsafe, sys; print(sorted({'torch', 'ray', 'flwr', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_the_package_can_be_named_in_what_is_sent_to_a_worker():
    assert pickle.loads(cloudpickle.dumps(lambda: package.assess))() is package.assess
    assert pickle.loads(pickle.dumps(package.assess)) is package.assess
    assert package.assess.Subject is Subject
    assert package.assess.ASSESSORS is ASSESSORS

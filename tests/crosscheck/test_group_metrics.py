"""Every group metric equals fairlearn's to 1e-12, on random people and on the shipped Adult data."""

import numpy as np
import pytest
import torch
from fairlearn import metrics as theirs
from sklearn.metrics import accuracy_score, precision_score
from torch import nn

from fedsafe.assess import Subject
from fedsafe.assess.fairness.assessor import Fairness
from fedsafe.data import Categorical, Examples, Label, Numeric, Schema, Source, Task, load_task

RATES = {
    "selection_rate": theirs.selection_rate,
    "true_positive_rate": theirs.true_positive_rate,
    "false_positive_rate": theirs.false_positive_rate,
    "positive_predictive_value": precision_score,
    "accuracy": accuracy_score,
}


def ours_of(frame, how):
    return lambda y, p, sensitive_features: getattr(
        theirs.MetricFrame(metrics=frame, y_true=y, y_pred=p, sensitive_features=sensitive_features), how
    )()


GAPS = {
    "demographic_parity_difference": (theirs.demographic_parity_difference, {}),
    "demographic_parity_ratio": (theirs.demographic_parity_ratio, {}),
    "equalised_odds_difference": (theirs.equalized_odds_difference, {}),
    "equalised_odds_ratio": (theirs.equalized_odds_ratio, {}),
    "average_odds_difference": (theirs.equalized_odds_difference, {"agg": "mean"}),
    "equal_opportunity_difference": (theirs.equal_opportunity_difference, {}),
    "predictive_parity_difference": (ours_of(precision_score, "difference"), {}),
    "accuracy_difference": (theirs.accuracy_score_difference, {}),
}


class Echo(nn.Module):
    """Decides as its first feature says."""

    def forward(self, x):
        return x[:, :1]


def people(seed):
    rng = np.random.default_rng(seed)
    n = 3000
    groups = {
        "sex": rng.choice(["Female", "Male"], n),
        "race": rng.choice(["A", "B", "C", "D"], n, p=[0.5, 0.25, 0.15, 0.1]),
    }
    y = rng.binomial(1, np.where(groups["sex"] == "Male", 0.5, 0.35))
    decided = rng.binomial(1, np.clip(0.15 + 0.5 * y + 0.2 * (groups["race"] == "B"), 0, 1))
    x = np.where(decided == 1, 0.5, -0.5).astype(np.float32)[:, None]
    examples = Examples(x=x, y=y, groups=groups)
    task = Task(
        name="made",
        kind="binary",
        classes=("no", "yes"),
        schema=Schema(
            label=Label(column="y", classes=("no", "yes")),
            columns=(Numeric(name="a", low=-1, high=1, encoded=(-1.0, 1.0)),),
        ),
        train=examples,
        evaluation=examples,
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )
    return Subject.outside(Echo(), task)


def adult():
    task = load_task("adult")
    assert any(isinstance(column, Categorical) and column.group for column in task.schema.columns)
    torch.manual_seed(0)
    model = nn.Linear(task.train.x.shape[1], 1)
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y).float()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y).backward()
        optimizer.step()
    return Subject.outside(model, task)


@pytest.mark.parametrize("make", [lambda: people(0), lambda: people(1), adult], ids=["0", "1", "adult"])
def test_every_rate_and_gap_equals_fairlearns(make):
    subject = make()
    findings = Fairness(minimum=20)(subject, rng=np.random.default_rng(0), tier="cheap")
    y, predicted = subject.evaluation.y, subject.predict(subject.evaluation.x)
    groups = dict(subject.evaluation.groups)
    groups["sex & race"] = np.strings.add(np.strings.add(groups["sex"], " & "), groups["race"])
    by_group = {
        attribute: theirs.MetricFrame(
            metrics=RATES, y_true=y, y_pred=predicted, sensitive_features=names
        ).by_group
        for attribute, names in groups.items()
    }
    compared = dict.fromkeys((*RATES, *GAPS), 0)
    for finding in findings:
        name = finding.metric.removeprefix("fairness.")
        if finding.status != "measured" or name not in compared:
            continue
        sensitive = groups[finding.where["attribute"]]
        if name in RATES:
            expected = by_group[finding.where["attribute"]].loc[finding.where["group"], name]
        else:
            kept = np.isin(sensitive, finding.detail["groups"])
            oracle, options = GAPS[name]
            expected = oracle(y[kept], predicted[kept], sensitive_features=sensitive[kept], **options)
        assert finding.value == pytest.approx(expected, abs=1e-12, rel=0), (name, finding.where)
        compared[name] += 1
    assert min(compared.values()) >= 3, compared

"""A model of one's own is judged outside any run, and what does not fit is said once, before anything is judged."""

import numpy as np
import pytest
from torch import nn

import fedsafe
from fedsafe.errors import DataError, ModelError

X = np.random.default_rng(0).random((400, 4)).astype(np.float32)
DATA, ABOUT = (X, (X.sum(axis=1) > 2).astype(np.int64)), {"low": 0, "high": 1}


def judge(model, data=DATA, about=ABOUT, **options):
    return fedsafe.assess(model, data, about=about, tier="cheap", **{"assessors": ["performance"], **options})


@pytest.mark.parametrize("one", ["performance", {"name": "performance"}])
def test_one_assessor_may_stand_alone(one):
    assert set(judge(nn.Linear(4, 1), assessors=one)["assessor"]) == {"performance"}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Linear(5, 1), r"cannot take records float32 of shape \(n, 4\), .* outputs of shape \(n, 1\)"),
        (nn.Linear(4, 2), r"returned \(2, 2\) where outputs of shape \(2, 1\)"),
        (nn.Linear(4, 1).double(), "records float32 .* dtype"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused_before_any_assessor(model, words):
    with pytest.raises(ModelError, match=words):
        judge(model, assessors=None)


def test_a_name_in_place_of_data_says_how_to_load_it():
    with pytest.raises(DataError, match=r"give fedsafe\.data\.load_task\('adult'\)"):
        judge(nn.Linear(4, 1), "adult", None)

"""Which records a search sees: never those of the final figures, and private ones only with noise."""

import dataclasses

import numpy as np
import pytest
from tiny_federation import task

from fedsafe.data import load_task
from fedsafe.errors import ConfigError
from fedsafe.runs.tuning_split import check_evaluation, named_task, part_of, part_spec

TINY = "tiny_federation:task"


def rows(examples):
    return {row.tobytes() for row in examples.x}


def test_no_record_is_both_tuned_and_judged_on():
    whole = task()
    tuning, kept = part_of(whole, "tuning", 0.3), part_of(whole, "kept", 0.3)
    assert (len(tuning.evaluation), len(kept.evaluation)) == (18, 42)
    assert not rows(tuning.evaluation) & rows(kept.evaluation)
    assert rows(tuning.evaluation) | rows(kept.evaluation) == rows(whole.evaluation)
    assert tuning.train is kept.train is whole.train


def test_public_trials_touch_no_training_record_and_none_of_the_final_ones():
    whole = task()
    public, kept = part_of(whole, "public", 0.5), part_of(whole, "kept", 0.5)
    seen = rows(public.train) | rows(public.evaluation)
    assert not rows(public.train) & rows(public.evaluation)
    assert not seen & rows(whole.train)
    assert not seen & rows(kept.evaluation)
    assert len(seen) == 30


def test_records_that_are_not_declared_public_are_not_trained_on():
    private = dataclasses.replace(task(), evaluation_public=False)
    with pytest.raises(ConfigError, match="not declared public: use --tune-on held-out"):
        part_of(private, "public", 0.5)
    assert part_of(private, "tuning", 0.3).evaluation_name.endswith("(private)")


def test_a_configuration_names_a_part():
    spec = part_spec(TINY, "kept", 0.3)
    loaded = load_task(spec)
    assert np.array_equal(loaded.evaluation.x, part_of(task(), "kept", 0.3).evaluation.x)
    assert load_task(part_spec(TINY, "tuning", 0.3)).train.x is loaded.train.x  # so that runs share a trainer
    assert named_task(spec) == named_task(TINY) == TINY


def test_too_few_records_choose_nothing():
    with pytest.raises(ConfigError, match="too few to choose by"):
        part_of(task(evaluation=30), "tuning", 0.3)


def test_training_records_are_not_scored_on():
    check_evaluation("test")
    with pytest.raises(ConfigError, match=r"data.evaluation = 'validation' judges on training records"):
        check_evaluation("validation")

"""A world whose rewards are known: two groups of people are told apart by their choices alone, and both understood."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import kendalltau

from fedsafe.alignment.gridworld import GOALS, GridWorld, gridworld
from fedsafe.alignment.recovery import recovered
from fedsafe.errors import ConfigError
from fedsafe.runs.compose import compose
from fedsafe.runs.config import make_config
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs

SMALL = {"people": 16, "pairs": 120, "held_out": 5, "side": 3, "steps": 6, "certainty": 1.0}


def test_moves_lead_to_neighbours_and_stay_at_the_edge():
    reached = GridWorld(side=3).reached
    assert reached[4].tolist() == [1, 7, 3, 5]
    assert reached[0].tolist() == [0, 3, 0, 1]
    assert reached[8].tolist() == [5, 8, 7, 8]


def test_a_steps_features_give_its_true_reward():
    world = GridWorld(side=3)
    features = world.everything
    assert features.shape == (36, 13)
    assert (features.sum(1) == 2.0).all()
    for goal in (0, 1):
        rewards = features @ world.truth(goal)
        assert len(np.unique(np.round(rewards[::4], 9))) > 5
        # Staying in the own corner is better than in the other.
        corner, other = (0, 8) if goal == 0 else (8, 0)
        assert world.truth(goal)[corner] == world.truth(goal)[:9].max()
        assert world.truth(goal)[other] == world.truth(goal)[:9].min()


def test_walks_go_where_their_moves_lead():
    world = GridWorld(side=3)
    walks = world.walks(200, 7, np.random.default_rng(0))
    cells, moves = walks[..., :9].argmax(-1), walks[..., 9:].argmax(-1)
    np.testing.assert_array_equal(world.reached[cells[:, :-1], moves[:, 1:]], cells[:, 1:])


def test_people_prefer_by_the_summed_reward_of_their_goal():
    """The shares are those of Bradley and Terry, and those of the other goal are not."""
    task = gridworld(people=40, pairs=200, side=3, certainty=0.7)
    world = GridWorld(side=3)
    goals = np.array([GOALS.index(goal) for goal in task.train.groups["goal"]])
    worth = [task.train.x.sum(2) @ world.truth(goal) for goal in (0, 1)]

    def surprise(of):
        margins = np.choose(of, [w[:, 0] - w[:, 1] for w in worth])
        p = expit(0.7 * margins)
        return (task.train.y - p).sum() / np.sqrt((p * (1 - p)).sum()), margins

    score, margins = surprise(goals)
    assert abs(score) < 4.0
    apart = [np.mean(task.train.y[(low < margins) & (margins < low + 1)]) for low in (-2, -1, 0, 1)]
    np.testing.assert_allclose(apart, expit(0.7 * (np.array([-2, -1, 0, 1]) + 0.5)), atol=0.05)
    wrong = np.choose(1 - goals, [w[:, 0] - w[:, 1] for w in worth])
    assert np.corrcoef(margins, task.train.y)[0, 1] > 0.4 > 0.2 > np.corrcoef(wrong, task.train.y)[0, 1]


def test_the_seed_alone_decides_the_task():
    first, again, other = gridworld(**SMALL), gridworld(**SMALL), gridworld(**SMALL, seed=1)
    np.testing.assert_array_equal(first.train.x, again.train.x)
    np.testing.assert_array_equal(first.train.y, again.train.y)
    assert (first.train.x != other.train.x).any()
    assert first.preferences.annotators.tolist() == first.evaluation.holders["annotator"].tolist()
    assert set(first.evaluation.holders["annotator"]) == set(first.train.holders["annotator"])


def configured(heads):
    return make_config(
        {
            "task": {"name": "fedsafe.alignment.gridworld:gridworld", **SMALL},
            "model": {"name": "reward", "heads": heads},
            "rounds": 25,
            "federation": {"partition": {"name": "natural", "by": "annotator"}, "cohort": {"rate": 1.0}},
            "client": {
                "steps": 4,
                "rate": 1.0,
                "optimizer": {"lr": 2.0},
                "local": ["position", "assignment"][:heads],
                "local_steps": 4,
            },
            "server": {"optimizer": {"momentum": 0.0}},
            "privacy": {"record": {"epsilon": math.inf}, "client": {"epsilon": math.inf}},
            "engine": {"name": "inline"},
        }
    )


def trained(heads):
    (run,) = prepare_runs([configured(heads)])
    *_, (_, last) = stacked_runs([run])
    return run.parts, last.parameters


def of(parts, parameters):
    return recovered(
        parts.module, parameters, parts.task, parts.records, local=tuple(parts.config.client.local)
    )


@pytest.mark.parametrize(("heads", "at_least", "at_most"), [(2, 0.8, 1.0), (1, -1.0, 0.6)])
def test_two_heads_recover_both_goals_and_one_cannot(heads, at_least, at_most):
    parts, parameters = trained(heads)
    assert parts.trainer == "stacked"
    found = of(parts, parameters)
    assert sorted(found) == sorted(GOALS)
    for one in found.values():
        assert at_least <= one.tau <= at_most


def test_kendalls_tau_is_that_of_the_true_rewards_against_the_groups_mean():
    parts = compose(configured(1))
    world = GridWorld(side=3)
    for goal, name in enumerate(GOALS):
        truth = world.truth(goal).astype(np.float32)
        vector = np.concatenate([truth, [0.0]]).astype(np.float32)
        found = of(parts, vector)
        assert found[name].tau == pytest.approx(1.0)
        other = world.everything @ world.truth(1 - goal)
        expected = kendalltau(world.everything @ truth, other).statistic
        assert found[GOALS[1 - goal]].tau == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"people": 1}, "people = 1 is not a whole number from 2"),
        ({"pairs": 0}, "pairs = 0 is not"),
        ({"steps": 2.0}, "steps = 2.0 is not"),
        ({"side": True}, "side = True is not"),
        ({"certainty": 0.0}, "certainty = 0.0 is not a number above 0"),
    ],
    ids=str,
)
def test_a_mistake_is_answered_with_a_remedy(options, message):
    with pytest.raises(ConfigError, match=message):
        gridworld(**options)

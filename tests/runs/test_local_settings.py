"""The settings of parameters that stay with their clients: what is wrong with them is one clear line."""

import math

import pytest
from tiny_federation import config, parts

from fedsafe.errors import ConfigError
from fedsafe.runs.audit_setting import setting_of
from fedsafe.runs.compose import calibrate
from fedsafe.runs.config import make_config
from fedsafe.runs.local_plans import OwnTraining
from fedsafe.runs.stacked_runs import prepare_runs, stacked_runs
from fedsafe.verify.plans import record_level

LOCAL = {"client__local": ["2"]}
SEEDED = {
    "privacy__noise_key": "seed",
    "privacy__client__epsilon": math.inf,
    "privacy__record__epsilon": math.inf,
    "model": "mlp",
}


def test_without_a_number_there_are_as_many_steps_for_them_as_for_all():
    client = make_config(config(**LOCAL, client__steps=4)).client
    assert (client.steps_for_local, client.all_steps) == (4, 8)
    client = make_config(config(**LOCAL, client__steps=4, client__local_steps=1)).client
    assert (client.steps_for_local, client.all_steps) == (1, 5)
    client = make_config(config(client__steps=4, client__local=[])).client
    assert (client.steps_for_local, client.all_steps) == (0, 4)


def test_a_plan_without_them_is_the_one_that_it_was():
    """No key of theirs is in it, or every hash of an earlier run would be another one."""
    plan = calibrate(parts())
    assert "local_steps" not in plan.numbers()["record"]
    assert calibrate(parts(client__local=[])).record == plan.record


def test_a_plan_with_them_is_read_back():
    plan = calibrate(parts(**LOCAL, client__local_steps=3))
    assert type(plan).from_numbers(plan.numbers()) == plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"client__local": ["position"]},
            r"client.local = \['position'\]: no parameter is called 'position': there are",
        ),
        ({"client__local": ["0", "2"]}, "every parameter would stay local, and clients would share nothing"),
        ({"client__local_steps": 2}, "client.local_steps = 2 finds the parameters that client.local names"),
        (
            {**LOCAL, "server__aggregator": "scaffold", "privacy__client__epsilon": math.inf},
            "'scaffold' corrects every parameter at every client",
        ),
        ({**LOCAL, "audit": {}}, "leave audit or client.local out"),
    ],
    ids=str,
)
def test_a_mistake_is_answered_with_a_remedy(changes, message):
    with pytest.raises(ConfigError, match=message):
        parts(**changes)


def test_what_trains_clients_in_another_way_says_that_it_does():
    of = parts(**LOCAL)
    plan = calibrate(of)
    with pytest.raises(ConfigError, match="audit trains clients without parameters of their own"):
        setting_of(of, plan)
    with pytest.raises(ConfigError, match="a client that trains alone shares nothing"):
        OwnTraining(rounds=1, lr=0.1).training(of, plan)
    assert "parameters of their own" in record_level(of, plan)


def test_runs_in_one_stack_have_each_its_own_steps():
    """Where nothing is said of their number, it follows from the other steps, in which runs of a grid may differ."""
    configs = [make_config(config(**LOCAL, **SEEDED, client__steps=steps)) for steps in (1, 2)]

    def models(chosen):
        return {
            (number, outcome.round): outcome.parameters.tobytes()
            for number, outcome in stacked_runs(prepare_runs(chosen))
        }

    together, alone = models(configs), [models([one]) for one in configs]
    assert len(together) == 6
    for (number, round), parameters in together.items():
        assert alone[number][0, round] == parameters
    assert alone[0] != alone[1]

"""Comparisons with peers say what was measured, and fall short aloud."""

import json
import sys

import numpy as np
import pytest
from bench import SCRIPTS
from comparing import Comparison, Interleaved, Limit, from_json, script
from flower_rounds import seconds_between
from flute import client_sizes
from table import BEGIN, END, README, table
from workloads import WORKS, client_rows

RESULTS = README.parent / "results" / "bench.json"


def comparison(**changes) -> Comparison:
    given = {"work": "w", "peer": "p", "unit": "s", "ours": [1.0, 2.0, 4.0], "theirs": [10.0, 10.0, 10.0]}
    return Comparison(**{**given, "least": 5.0, **changes})


def test_pairs_are_compared_one_by_one():
    found = comparison(paired=True)
    assert (found.ratio, found.spread) == (5.0, (2.5, 10.0))


def test_without_pairs_the_medians_are_compared_and_a_tenth_of_all_pairs_is_left_out_at_each_end():
    found = comparison(ours=[1.0, 2.0], theirs=[10.0, 20.0, 30.0, 40.0, 50.0])
    assert found.ratio == 30.0 / 1.5
    assert found.spread == (10.0, 40.0)


@pytest.mark.parametrize(("least", "value", "met"), [(5.0, 1.0, True), (5.1, 1.0, False), (5.0, 1.1, False)])
def test_it_is_met_only_if_ratio_and_limits_are(least, value, met):
    limit = Limit(name="a limit", value=value, most=1.0, unit="ms")
    assert comparison(paired=True, least=least, limits=[limit]).met == met


def test_what_is_written_is_read_back():
    found = comparison(limits=[Limit(name="a limit", value=1.0, most=2.0, unit="ms")])
    assert from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_script_that_falls_short_says_so_and_exits_with_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as ended:
        script(lambda repeats: [comparison(paired=True, least=100.0)])
    assert ended.value.code == 1
    assert capsys.readouterr().out.startswith("FELL SHORT w, against p")


def test_turns_leave_the_first_call_out_and_take_a_functions_own_seconds():
    own = iter(range(100))
    seconds = Interleaved()
    seconds.run(lambda: float(next(own)), lambda: 7.0, repeats=3)
    assert seconds.ours == [1.0, 2.0, 3.0]
    assert seconds.theirs == [7.0] * 3


def test_the_first_round_is_left_out():
    assert seconds_between([{"clock": second} for second in (0.0, 100.0, 101.0, 103.0)]) == [1.0, 2.0]


def test_the_table_of_the_readme_is_what_was_measured():
    text = README.read_text(encoding="utf-8")
    written = text.split(BEGIN)[1].split(END)[0].strip()
    measured = table(json.loads(RESULTS.read_text()), RESULTS.name).strip() if RESULTS.exists() else ""
    assert written == measured


def test_the_readme_names_every_script():
    text = README.read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in text and (README.parent / f"{name}.py").exists() for name in SCRIPTS)


def test_sizes_follow_a_power_law_and_use_every_record():
    sizes = client_sizes(60_000, 1000)
    assert sizes.sum() == 60_000
    assert sizes.min() >= 10
    # Above ten records each, the logarithm falls by 0.8 for one of the rank; whole numbers are one off at most.
    above = sizes[1:100] - 10
    law = above[0] * (np.arange(2, 101) / 2.0) ** -0.8
    assert np.abs(above - law).max() <= 2.0


@pytest.mark.parametrize("name", WORKS)
def test_a_clients_records_are_its_own_and_the_module_is_the_same_each_time(name):
    work = WORKS[name]
    x, y = work.data(2)
    assert x[client_rows(work, 1)].shape == (work.records, *work.inputs)
    assert len(y) == 2 * work.records == client_rows(work, 1).stop
    first, second = work.module().state_dict(), work.module().state_dict()
    assert all((first[key] == second[key]).all() for key in first)
    assert work.steps * work.batch == work.records


def test_the_client_that_does_nothing_sends_back_6850_parameters():
    from nothing import client, server

    from fedsafe.engine import ClientApps, InlineGrid

    result = server.play(InlineGrid(clients=10, apps=ClientApps(one=client.app)), 10, rounds=2, fraction=0.5)
    assert sum(array.size for array in result.arrays.to_numpy_ndarrays()) == 6850
    assert sorted(result.evaluate_metrics_serverapp) == [0, 1, 2]
    assert all(not array.any() for array in result.arrays.to_numpy_ndarrays())

"""How many trials there are and what each of them gets: alike, independent, kept, and as many as the law says."""

import math
import os

import numpy as np
import pytest
from scipy import stats

from fedsafe.errors import ConfigError, RecordError
from fedsafe.runs.tuning_draws import Draws, Searcher, draws_of, other_searches
from fedsafe.runs.tuning_space import Axis

LR = Axis(name="lr", key="client.optimizer.lr", low=0.1, high=10.0, log=True)
CLIP = Axis(name="clip", key="privacy.record.clip", values=("1", "2", "3"))


def number(key, mean=8):
    from fedsafe.runs.tuning_draws import _poisson

    return _poisson(key, mean)


def keys(count):
    return [place.to_bytes(32, "big") for place in range(count)]


def fits(counts, mean):
    """Chi-squared of counts of trials against a Poisson law."""
    edges = np.arange(3, 15)
    found = [sum(c < edges[0] for c in counts), *(counts.count(e) for e in edges[:-1])]
    found.append(len(counts) - sum(found))
    law = stats.poisson(mean)
    wanted = [law.cdf(edges[0] - 1), *law.pmf(edges[:-1])]
    wanted.append(1.0 - sum(wanted))
    return stats.chisquare(found, np.array(wanted) * len(counts)).pvalue


def test_how_many_trials_there_are_follows_poissons_law_and_no_other():
    counts = [number(key) for key in keys(3000)]
    assert fits(counts, 8) > 1e-3
    assert fits(counts, 7.5) < 1e-3
    assert fits(counts, 8.5) < 1e-3
    assert fits([8 + (count - 8) // 2 for count in counts], 8) < 1e-3


def test_there_may_be_no_trial():
    counts = [number(key, mean=1) for key in keys(300)]
    assert counts.count(0) == pytest.approx(300 * math.exp(-1), abs=35)


def test_trials_are_drawn_alike_and_apart():
    draws = Draws(name="", key=bytes(32), trials=2000)
    values = [draws.values(place, (LR, CLIP)) for place in range(2000)]
    shares = [math.log10(float(one[LR.key]) / 0.1) / 2 for one in values]
    assert stats.kstest(shares, "uniform").pvalue > 1e-3
    assert stats.kstest([share**1.1 for share in shares], "uniform").pvalue < 1e-3
    assert abs(np.corrcoef(shares[:-1], shares[1:])[0, 1]) < 0.08
    assert stats.chisquare([[one[CLIP.key] for one in values].count(v) for v in CLIP.values]).pvalue > 1e-3
    assert abs(np.corrcoef(shares, [int(one[CLIP.key]) for one in values])[0, 1]) < 0.08


def test_a_search_keeps_its_chance_to_itself(tmp_path):
    private = tmp_path / "private"
    first = draws_of(private, ["a"], mean=8, law="poisson", seed=None)
    again = draws_of(private, ["a"], mean=8, law="poisson", seed=None)
    assert (first.key, first.trials) == (again.key, again.trials)
    assert first.key.hex() not in first.name
    assert first.key.hex() not in repr(first)
    others = [
        draws_of(private, ["b"], mean=8, law="poisson", seed=None),
        draws_of(private, ["a"], mean=9, law="poisson", seed=None),
        draws_of(tmp_path / "elsewhere", ["a"], mean=8, law="poisson", seed=None),
    ]
    assert len({first.key, *(one.key for one in others)}) == 4
    assert os.stat(private).st_mode & 0o077 == 0
    assert os.stat(private / "searches").st_mode & 0o077 == 0


def test_after_a_change_of_code_or_records_it_is_another_search(tmp_path):
    def drawn(*made_by, seed=None):
        return draws_of(tmp_path / "private", ["a"], mean=8, law="poisson", seed=seed, made_by=made_by)

    first, again, changed = drawn("code", "records"), drawn("code", "records"), drawn("code", "others")
    assert first.key == again.key != changed.key
    assert (other_searches(tmp_path / "private", [again]), other_searches(tmp_path / "private", [])) == (1, 2)
    # A simulation can be repeated by later code, and with other records its trials are others all the same.
    one, other = drawn("code", seed=3), drawn("later code", seed=3)
    assert one.key == other.key
    assert one.name != other.name


def test_a_simulation_repeats_its_chance_and_leaves_no_secret(tmp_path):
    one, other = (draws_of(tmp_path / name, ["a"], mean=8, law="poisson", seed=3) for name in "ab")
    assert (one.key, one.trials) == (other.key, other.trials)
    assert one.key != draws_of(tmp_path, ["a"], mean=8, law="poisson", seed=4).key
    assert not (tmp_path / "a").exists()


def test_a_folder_that_a_simulation_made_is_its_owners_alone_from_now_on(tmp_path):
    private = tmp_path / "private"
    (private / "searches").mkdir(parents=True, mode=0o755)
    draws_of(private, ["a search"], mean=8, law="poisson", seed=None)
    assert [path.stat().st_mode & 0o777 for path in (private, private / "searches")] == [0o700, 0o700]


def test_half_a_key_is_refused(tmp_path):
    name = draws_of(tmp_path, ["a"], mean=8, law="fixed", seed=None).name
    (tmp_path / "searches" / f"{name}.key").write_bytes(b"short")
    with pytest.raises(RecordError, match="is not whole"):
        draws_of(tmp_path, ["a"], mean=8, law="fixed", seed=None)


def search(draws, *, adaptive, batch, score):
    searcher = Searcher((LR, CLIP), draws, adaptive=adaptive)
    while asked := searcher.ask(batch):
        searcher.tell([(place, score(values)) for place, values in asked])
    return searcher


def near_one(values):
    return -abs(math.log(float(values[LR.key])))


def test_independent_trials_do_not_depend_on_scores_or_batches():
    draws = Draws(name="", key=bytes(32), trials=7)
    one = search(draws, adaptive=False, batch=7, score=near_one)
    other = search(draws, adaptive=False, batch=2, score=lambda values: -near_one(values))
    assert one.asked == other.asked == [draws.values(place, (LR, CLIP)) for place in range(7)]
    best, values = one.best()
    assert near_one(values) == max(map(near_one, one.asked))
    assert one.asked[best] == values
    assert other.best()[1] != values


def test_adaptive_trials_go_where_scores_are():
    draws = Draws(name="", key=bytes(32), trials=60)
    one = search(draws, adaptive=True, batch=5, score=near_one)
    again = search(draws, adaptive=True, batch=5, score=near_one)
    assert one.asked == again.asked
    late = [near_one(values) for values in one.asked[40:]]
    apart = [near_one(draws.values(place, (LR, CLIP))) for place in range(60)]
    assert np.mean(late) > np.mean(apart) + 0.3


def test_a_score_that_is_no_number_is_worst():
    draws = Draws(name="", key=bytes(32), trials=4)
    searcher = Searcher((LR,), draws, adaptive=False)
    searcher.tell([(place, math.nan if place != 2 else -5.0) for place, _ in searcher.ask(4)])
    assert searcher.best()[0] == 2


def test_no_trial_chooses_nothing():
    searcher = Searcher((LR,), Draws(name="", key=bytes(32), trials=0), adaptive=False)
    assert searcher.ask(5) == []
    assert searcher.best() is None


def test_optuna_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedsafe\[tune\]'"):
        Searcher((LR,), Draws(name="", key=bytes(32), trials=1), adaptive=False)

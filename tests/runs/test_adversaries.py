"""The section ``[byzantine]``: who is an adversary, what becomes of the run, and what is said of it."""

import json
import math

import numpy as np
import pytest
from tiny_federation import CLIENTS, apps, config, parts, plan, play

from fedsafe.aggregation.attacks import Attacked
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError
from fedsafe.runs import make_config, resume, run
from fedsafe.runs.adversaries import adversaries_of
from fedsafe.runs.compose import aggregator_of, compose, program_digest
from fedsafe.runs.planning import plan_and_claims

FREE = {"privacy__client__epsilon": math.inf, "privacy__record__epsilon": math.inf}
ROWS = {**FREE, "server__aggregator": "mean"}
ALIE = {"attack": "alie", "share": 0.25}
FLIP = {"poison": "label_flip", "share": 0.25}
DOOR = {"name": "backdoor", "target": "yes", "columns": {"sex": "Male"}}


def configured(byzantine, **changes):
    return make_config(config(**{**ROWS, "byzantine": byzantine, **changes}))


class TestWho:
    def test_a_share_of_the_clients_chosen_by_the_seed(self):
        found = adversaries_of(configured(ALIE), CLIENTS)
        assert len(found) == 3
        assert sorted(set(found.tolist())) == found.tolist()
        assert found.tolist() == adversaries_of(configured(FLIP), CLIENTS).tolist()
        others = [adversaries_of(configured(ALIE, seed=seed), CLIENTS).tolist() for seed in range(1, 5)]
        assert found.tolist() not in others

    def test_a_larger_share_has_those_of_a_smaller_one_and_more(self):
        """So that a sweep over shares changes one thing."""
        sets = [
            set(adversaries_of(configured({**ALIE, "share": share}), CLIENTS)) for share in (0.1, 0.3, 0.5)
        ]
        assert sets[0] < sets[1] < sets[2]

    def test_a_number_is_as_good_as_a_share(self):
        assert len(adversaries_of(configured({"attack": "alie", "adversaries": 5}), CLIENTS)) == 5

    def test_without_the_section_nobody_is(self):
        assert len(adversaries_of(make_config(config()), CLIENTS)) == 0


class TestPoison:
    def test_adversaries_train_on_poisoned_records_and_the_model_is_judged_on_clean_ones(self):
        clean, poisoned = parts(**FREE), parts(**FREE, byzantine=FLIP)
        adversaries = adversaries_of(poisoned.config, CLIENTS)
        for client in range(CLIENTS):
            rows = clean.records[client]
            np.testing.assert_array_equal(rows, poisoned.records[client])
            same = (clean.task.train.y[rows] == poisoned.task.train.y[rows]).all()
            assert same == (client not in adversaries)
        np.testing.assert_array_equal(clean.task.evaluation.y, poisoned.task.evaluation.y)
        np.testing.assert_array_equal(clean.task.train.x, poisoned.task.train.x)
        np.testing.assert_array_equal(clean.initial, poisoned.initial)

    def test_it_works_with_any_rule_and_privacy_level(self, tmp_path):
        done = run(config(byzantine={"poison": DOOR, "adversaries": 2}), out=tmp_path / "run")
        for claim in done.claims:
            assert claim["epsilon"] is not None
            (said,) = [phrase for phrase in claim["assumptions"] if "adversaries" in phrase]
            assert "2 of the 12 clients are simulated adversaries" in said
            assert "poisoned" in said

    def test_the_claim_is_that_of_the_run_without_adversaries(self):
        clean, under = (
            plan_and_claims(parts(**changes), key_from_seed=False) for changes in ({}, {"byzantine": FLIP})
        )
        for one, other in zip(clean.claims, under.claims, strict=True):
            assert one["epsilon"] == other["epsilon"]
            differ = {key for key in one if one[key] != other[key]}
            assert differ == {"assumptions", "statement"}


class TestAttack:
    def test_the_server_s_rule_is_under_attack(self):
        of = parts(**ROWS, byzantine=ALIE)
        rule = aggregator_of(of, plan(of, noise=0.0))
        assert isinstance(rule, Attacked)
        assert rule.name == "mean"

    @pytest.mark.parametrize(
        "aggregator", ["krum", "centred_clipping", {"name": "median", "before": "bucketing"}]
    )
    def test_no_packing_changes_a_bit(self, aggregator, tmp_path):
        of = parts(
            **{**ROWS, "server__aggregator": aggregator}, byzantine={"attack": "gaussian", "share": 0.25}
        )
        by = plan(of, noise=0.0)
        made = apps(of, by)()
        ends = [
            play(of, by, InlineGrid(clients=CLIENTS, apps=clients, chunk=chunk), tmp_path / f"{number}")[-1]
            for number, (clients, chunk) in enumerate(
                [(made, None), (made, 5), (ClientApps(one=made.one), 1)]
            )
        ]
        assert len({end.parameters.tobytes() for end in ends}) == 1

    def test_the_mean_goes_where_the_adversaries_push_it_and_the_median_does_not(self, tmp_path):
        changes = {"rounds": 6, "federation__cohort__rate": 1.0, "client__rate": 1.0, "assess__every": 6}
        push = {"attack": {"name": "sign_flip", "scale": 10.0}, "share": 0.25}

        def accuracy(name, aggregator, byzantine):
            values = {**FREE, **changes, "server__aggregator": aggregator, "byzantine": byzantine}
            return run(config(**values), out=tmp_path / name).rounds().accuracy.iloc[-1]

        clean = accuracy("clean", "mean", None)
        assert accuracy("mean", "mean", push) < clean - 0.2
        assert accuracy("median", "median", push) > clean - 0.15

    def test_a_share_of_zero_is_the_run_without_adversaries(self, tmp_path):
        def last(name, byzantine):
            # Everybody takes part with every record: what is drawn differs between plans.
            everybody = {"federation__cohort__rate": 1.0, "client__rate": 1.0}
            values = {**ROWS, **everybody, "server__aggregator": "median"}
            done = run(config(**values, byzantine=byzantine), out=tmp_path / name)
            return hash_of(done.path), done.claims

        assert last("none", {**ALIE, "share": 0.0}) == last("without", None)

    def test_a_resumed_run_is_attacked_in_the_same_way(self, tmp_path):
        values = {
            **ROWS,
            "privacy__noise_key": "seed",
            "server__aggregator": {"name": "centred_clipping", "before": "bucketing"},
            "byzantine": {"attack": "gaussian", "share": 0.25},
        }
        whole = run(config(**values), out=tmp_path / "whole")

        class Interrupts(SilentCallback):
            def on_round(self, line):
                if line.round == 2:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(config(**values), out=tmp_path / "cut", callbacks=[Interrupts()])
        assert hash_of(resume(tmp_path / "cut").path) == hash_of(whole.path)


class SilentCallback:
    def on_start(self, path, start, first_round): ...

    def on_round(self, line): ...

    def on_assessment(self, assessment): ...

    def on_end(self, end): ...


def hash_of(path):
    lines = [json.loads(line) for line in (path / "record.jsonl").read_text().splitlines()]
    return [line["parameters_sha256"] for line in lines if line["kind"] == "round"]


class TestWhatIsSaid:
    def test_the_record_says_who_and_what_since_that_is_public(self, tmp_path):
        done = run(config(**ROWS, byzantine={**ALIE, "poison": "label_flip"}), out=tmp_path / "run")
        first = json.loads((done.path / "record.jsonl").read_text().splitlines()[0])
        said = first["federation"]["byzantine"]
        assert said == {
            "attack": "alie",
            "poison": "label_flip",
            "adversaries": 3,
            "clients": adversaries_of(make_config(config(byzantine=ALIE, **ROWS)), CLIENTS).tolist(),
        }

    def test_a_run_without_says_nothing(self, tmp_path):
        done = run(config(**ROWS), out=tmp_path / "run")
        assert (
            "byzantine"
            not in json.loads((done.path / "record.jsonl").read_text().splitlines()[0])["federation"]
        )
        assert "byzantine" not in (done.path / "config.toml").read_text()

    def test_what_adversaries_do_is_part_of_what_is_resumed(self):
        digests = {
            program_digest(parts(**ROWS, **({"byzantine": section} if section else {})))
            for section in (None, ALIE, {**ALIE, "share": 0.5}, {"attack": "mimic", "share": 0.25})
        }
        assert len(digests) == 4


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"byzantine": {"attack": "alie", "adversaries": 13}},
            "adversaries = 13 of 12 clients leaves no honest one",
        ),
        ({"byzantine": {"attack": "alie", "adversaries": 12}}, "at most 11 can be adversaries"),
        ({"byzantine": {"attack": "alie", "share": 0.99}}, "share = 0.99 of 12 clients leaves no honest one"),
        ({"byzantine": {"attack": "alie", "share": 1.0}}, "byzantine.share = 1.0"),
        ({"byzantine": {"attack": "alie"}}, "not how many adversaries there are: set byzantine.share"),
        ({"byzantine": {"attack": "alie", "share": 0.1, "adversaries": 1}}, "leave one out"),
        ({"byzantine": {"share": 0.1}}, "says nothing that adversaries do: set byzantine.attack"),
        ({"byzantine": {"atack": "alie", "share": 0.1}}, "did you mean 'byzantine.attack'"),
        ({"byzantine": {"attack": "alei", "share": 0.1}}, "did you mean 'alie'"),
        (
            {"byzantine": ALIE, "server__aggregator": "fedavg"},
            "'alie' needs the update of each client.*'fedavg' adds",
        ),
        ({"byzantine": ALIE, "server__aggregator": "noisy_mean"}, "'noisy_mean' adds them up"),
        (
            {"byzantine": {"attack": "model_replacement", "share": 0.1}},
            "set byzantine.poison, such as a backdoor",
        ),
        ({"byzantine": {"poison": {"name": "backdoor", "target": "yes"}, "share": 0.1}}, "has no trigger"),
        ({"byzantine": {"poison": {**DOOR, "columns": None, "patch": 3}, "share": 0.1}}, "is for images"),
        ({"byzantine": ALIE, "engine__name": "flower"}, "Flower's nodes are clients of their own"),
        (
            {"server__aggregator": {"name": "krum", "adversaries": 6}},
            "adversaries = 6 of 12 clients; no rule",
        ),
    ],
)
def test_a_wrong_request_is_one_clear_line(changes, why):
    with pytest.raises(ConfigError, match=why) as caught:
        compose(make_config(config(**{**ROWS, **changes})))
    assert "\n" not in str(caught.value)

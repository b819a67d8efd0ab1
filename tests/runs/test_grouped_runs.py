"""Whose preferences count: who is in which group, what is said of it, and what each choice gives to whom."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_federation import config, task

from fedsafe.aggregation import check_aggregator
from fedsafe.data import ArraySchema, Examples, Source, Task
from fedsafe.errors import ConfigError
from fedsafe.records import Round
from fedsafe.runs import make_config, resume, run
from fedsafe.runs.audit import check_audit
from fedsafe.runs.compose import calibrate, compose, program_digest
from fedsafe.runs.planning import plan_and_claims
from fedsafe.store import RunFolder
from fedsafe.verify import check_plan

PEOPLE, FEW, PAIRS = 40, 4, 30


def two_camps() -> Task:
    """A tenth of the people want the opposite of the others in one of two things."""
    rng = np.random.default_rng(3)

    def draw(each: int) -> Examples:
        person = np.repeat(np.arange(PEOPLE), each)
        x = rng.uniform(-1.0, 1.0, (len(person), 2)).astype(np.float32)
        sign = np.where(person < FEW, -1.0, 1.0)
        return Examples(
            x=x,
            y=(0.7 * x[:, 0] + sign * x[:, 1] > 0).astype(np.int64),
            groups={"camp": np.where(person < FEW, "few", "many")},
            holders={"person": np.array([f"p{number:02}" for number in person])},
        )

    return Task(
        name="camps",
        kind="binary",
        classes=("second", "first"),
        schema=ArraySchema(shape=(2,), lowest=-1.0, highest=1.0),
        train=draw(PAIRS),
        evaluation=draw(20),
        evaluation_name="made by hand (public)",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )


CAMPS = two_camps()


def settings(weights=None, **changes):
    spec = {"name": "grouped_mean", "column": "camp", **weights} if weights else "noisy_mean"
    return make_config(
        config(
            **{
                "task": "adult",  # replaced by ``data``
                "rounds": 8,
                "federation": {
                    "clients": None,
                    "partition": {"name": "natural", "by": "person"},
                    "cohort": {"name": "poisson", "rate": 1.0},
                },
                "model": {"name": "linear"},
                "client": {"steps": 2, "rate": 1.0, "optimizer": {"name": "sgd", "lr": 2.0}},
                "server": {"aggregator": spec, "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.0}},
                "privacy": {
                    "noise_key": "seed",
                    "record": {"epsilon": math.inf},
                    "client": {"epsilon": 50.0, "delta": 1e-3, "clip": 0.5},
                },
                "assess": {"every": 8, "assessors": []},
                **changes,
            }
        )
    )


def by_camp(model) -> dict[str, float]:
    x, y = torch.tensor(CAMPS.evaluation.x), CAMPS.evaluation.y
    with torch.no_grad():
        right = (model(x)[:, 0].numpy() > 0) == (y == 1)
    return {camp: float(right[CAMPS.evaluation.groups["camp"] == camp].mean()) for camp in ("few", "many")}


CHOICES = {
    "mean": None,
    "size": {"weights": "size"},
    "uniform": {"weights": "uniform"},
    "minimum": {"weights": "minimum"},
    "adaptive": {"weights": "adaptive", "step": 2.0},
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camps")
    return {name: run(settings(choice), data=CAMPS, out=folder / name) for name, choice in CHOICES.items()}


class TestTrade:
    @pytest.mark.parametrize("choice", ["uniform", "minimum", "adaptive"])
    def test_the_few_gain_and_the_many_pay(self, ends, choice):
        mean, other = by_camp(ends["mean"].model(data=CAMPS)), by_camp(ends[choice].model(data=CAMPS))
        assert other["few"] > mean["few"] + 0.1
        assert other["many"] < mean["many"] - 0.02

    def test_by_size_nobody_gains(self, ends):
        assert by_camp(ends["size"].model(data=CAMPS)) == pytest.approx(
            by_camp(ends["mean"].model(data=CAMPS)), abs=0.03
        )

    def test_the_budget_is_the_same(self, ends):
        epsilons = {end.claims[0]["epsilon"] for end in ends.values()}
        assert len(epsilons) == 1

    def test_the_record_has_the_weights_of_each_round(self, ends):
        rounds = ends["adaptive"].rounds()
        few, many = rounds["weight of few"], rounds["weight of many"]
        np.testing.assert_allclose(few + many, 1.0)
        assert few.iloc[-1] > 0.3 > few.iloc[0]
        assert set(ends["uniform"].rounds()["weight of few"]) == {0.5}
        assert "weight of few" not in ends["mean"].rounds()


@pytest.mark.parametrize("weights", ["adaptive", "minimum"])
@pytest.mark.parametrize("epsilon", [50.0, math.inf])
def test_a_resumed_run_has_the_weights_it_would_have_had(tmp_path, monkeypatch, weights, epsilon):
    """Also where it died after the round was released, and before its line was written."""
    values = settings({"weights": weights}, rounds=4)
    level = values.privacy.client.model_copy(update={"epsilon": epsilon})
    values = values.model_copy(update={"privacy": values.privacy.model_copy(update={"client": level})})
    whole = run(values, data=CAMPS, out=tmp_path / "whole")
    append = RunFolder.append_record

    def die_before_the_line(self, line):
        if isinstance(line, Round) and line.round == 3:
            raise KeyboardInterrupt
        append(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_record", die_before_the_line)
        with pytest.raises(KeyboardInterrupt):
            run(values, data=CAMPS, out=tmp_path / "cut")
    cut = resume(tmp_path / "cut", data=CAMPS)
    assert lines(cut.path) == lines(whole.path)


def lines(path):
    read = [json.loads(line) for line in (path / "record.jsonl").read_text().splitlines()]
    return [(line["metrics"], line["parameters_sha256"]) for line in read if line["kind"] == "round"]


class TestMembership:
    def test_it_is_what_the_column_says_and_the_claims_say_that_it_is_public(self):
        parts = compose(settings({"weights": "uniform"}), data=CAMPS)
        assert parts.groups.names == ("few", "many")
        assert parts.groups.of.tolist() == [0] * FEW + [1] * (PEOPLE - FEW)
        planned = plan_and_claims(parts, key_from_seed=False)
        for claim in planned.claims:
            said = "; ".join(claim["assumptions"])
            assert "which group a client is in (camp) is public and does not change" in said
            assert f"how many are registered in each (few {FEW}, many {PEOPLE - FEW})" in said
        client = next(claim for claim in planned.claims if claim["unit"] == "client")
        assert client["release"].startswith("every broadcast model, and the weight of each group")
        for claim in plan_and_claims(compose(settings(), data=CAMPS), key_from_seed=False).claims:
            assert "group" not in "; ".join(claim["assumptions"])

    def test_a_column_that_says_who_holds_a_record_is_one_too_where_several_clients_share_it(self):
        values = settings({"weights": "uniform", "column": "town"})
        town = {"town": np.repeat([f"t{number}" for number in range(PEOPLE // 2)], 2 * PAIRS)}
        shared = replace(CAMPS, train=replace(CAMPS.train, holders={**CAMPS.train.holders, **town}))
        assert compose(values, data=shared).groups.sizes.tolist() == [2] * (PEOPLE // 2)

    def test_no_record_has_the_weight_of_a_single_person(self):
        with pytest.raises(ConfigError, match="each of 40 clients is a group of its own"):
            compose(settings({"weights": "uniform", "column": "person"}), data=CAMPS)

    def test_other_groups_are_another_program(self):
        """Two plans that differ in who is in which group meet no noise together."""
        parts = compose(settings({"weights": "uniform"}), data=CAMPS)
        swapped = replace(parts, groups=replace(parts.groups, of=1 - parts.groups.of))
        assert program_digest(parts) != program_digest(swapped)

    @pytest.mark.parametrize(
        ("weights", "changes", "why"),
        [
            ({"weights": "size", "column": "gender"}, {}, "does not have: its columns are camp, person"),
            (
                {"weights": "size", "smallest": 5},
                {},
                "fewer than 5 clients have 4 together, which is too few",
            ),
            ({"weights": "size", "smallest": 99}, {}, "all 40 clients are in the one group 'other'"),
            ({"weights": "size"}, {"engine": {"name": "flower"}}, "which group a node is in is not part"),
        ],
    )
    def test_what_gives_no_groups_is_one_line(self, weights, changes, why):
        values = settings(weights, **changes)
        with pytest.raises(ConfigError, match=why) as caught:
            compose(values, data=CAMPS)
        assert "\n" not in str(caught.value)

    def test_a_client_with_records_in_two_groups_is_named(self):
        groups = CAMPS.train.groups["camp"].copy()
        groups[7 * PAIRS] = "few"
        mixed = replace(CAMPS, train=replace(CAMPS.train, groups={"camp": groups}))
        with pytest.raises(
            ConfigError, match=r"client 'p07' has records with camp = 'few' and 'many'.*1 of 40"
        ):
            compose(settings({"weights": "size"}), data=mixed)
        spec = {"name": "grouped_mean", "column": "sex", "weights": "size"}
        with pytest.raises(ConfigError, match=r"client 0 has records with sex = 'Female' and 'Male'"):
            compose(make_config(config(server__aggregator=spec)), data=task())


def test_without_a_target_it_is_fedavg_of_the_groups_and_says_what_leaves():
    free = settings({"weights": "adaptive"})
    level = free.privacy.client.model_copy(update={"epsilon": math.inf})
    free = free.model_copy(update={"privacy": free.privacy.model_copy(update={"client": level})})
    parts = compose(free, data=CAMPS)
    claims = plan_and_claims(parts, key_from_seed=False).claims
    assert any("loss of each client" in phrase for claim in claims for phrase in claim["not_covered"])
    noised = plan_and_claims(
        compose(settings({"weights": "adaptive"}), data=CAMPS), key_from_seed=False
    ).claims
    assert not any("loss of each client" in phrase for claim in noised for phrase in claim["not_covered"])


def test_an_audit_of_clients_is_refused_before_the_first_round():
    values = settings({"weights": "uniform"}, audit={"kinds": ["client"], "every": 2, "canaries": 100})
    with pytest.raises(ConfigError, match=r"adds clients of its own.*'grouped_mean' weighs groups"):
        check_audit(compose(values, data=CAMPS))


def test_verify_says_that_it_does_not_check_groups():
    """What is not checked is no pass, and the line says why."""
    of = compose(settings({"weights": "uniform"}), data=CAMPS)
    report = check_plan(of, calibrate(of), name="camps", runs=8)
    assert not [outcome for outcome in report.outcomes if outcome.status == "pass"]
    said = " ".join(report.lines())
    assert "grouped_mean weighs groups of clients, and the clients that are scripted here have none" in said


def test_a_wrong_setting_is_found_before_the_data_are_read():
    with pytest.raises(ConfigError, match="needs the option 'weights'"):
        check_aggregator(
            {"name": "grouped_mean", "column": "camp"}, client_private=True, record_private=False
        )

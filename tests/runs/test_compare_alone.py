"""Each cell of a paired comparison is the run that ``fedsafe run`` makes of its configuration, to the last bit."""

import json
import math

import pytest
from tiny_federation import config

import fedsafe.runs.compare as compare
from fedsafe.runs import make_config, read_config, run
from fedsafe.runs.comparison import CLIPPED, Comparison
from fedsafe.runs.comparison_tables import CONFIGURATIONS, configuration_name
from fedsafe.runs.resume import resume

BASE = config(
    privacy__noise_key="seed",
    assess__assessors=["performance", "fairness"],
    audit={"every": 2, "canaries": 40},
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paired")
    comparison = Comparison(
        base=make_config(BASE), epsilons=(0.1, 0.3, CLIPPED, math.inf), seeds=2, paired=True
    )
    done = compare.compute_comparison(comparison, folder)
    compare.write_tables(folder, done.cells, done.results, done.keys, done.body)
    return folder, done


def alone(source, out, **options):
    """Digest of the last model, and the findings on it but for those beside an earlier one, which a cell has not."""
    found = run(source, out=out, **options)
    return digest(found), figures(found.last_findings())


def digest(found):
    lines = [json.loads(line) for line in (found.path / "record.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "round"][-1]["parameters_sha256"]


def figures(findings):
    return {
        json.dumps([finding["metric"], finding["where"]]): (finding["value"], finding["interval"])
        for finding in findings
        if not finding["metric"].startswith("comparison.")
    }


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_paired_cell_is_the_single_run_of_its_configuration(compared, number, tmp_path):
    folder, done = compared
    cell, kept = done.cells[number], done.results[number]
    source = folder / CONFIGURATIONS / configuration_name(cell)
    found = alone(source, tmp_path / "run")
    assert found[0] == kept["parameters_sha256"]
    assert found[1] == json.loads(json.dumps(figures(kept["findings"])), object_hook=tuples)
    assert any("audited" in key for key in found[1])


def tuples(values):
    return {key: tuple(value) for key, value in values.items()}


def test_options_of_a_single_run_say_the_same(compared, tmp_path):
    """Without the file: the seed, the budget, and that the run is paired."""
    _, done = compared
    source = tmp_path / "base.toml"
    source.write_text(make_config(BASE).to_toml())
    words = ["seed=1", "privacy.paired=true", "privacy.record.epsilon=0.3", "privacy.client.epsilon=0.3"]
    found = alone(read_config(source, words), tmp_path / "run")
    assert found[0] == done.results[3]["parameters_sha256"]
    # Unpaired, the same run has other cohorts, batches and noise.
    assert alone(read_config(source, [words[0], *words[2:]]), tmp_path / "own")[0] != found[0]


def test_a_level_that_clips_without_noise_has_no_run_of_its_own(compared):
    folder, done = compared
    names = [configuration_name(cell) for cell in done.cells]
    assert names[4:6] == [None, None]
    assert sorted(path.name for path in (folder / CONFIGURATIONS).iterdir()) == sorted(filter(None, names))


class Stop:
    """Interrupts a run after its first round."""

    def on_start(self, path, start, first_round): ...

    def on_assessment(self, assessment): ...

    def on_end(self, end): ...

    def on_round(self, line):
        raise KeyboardInterrupt


@pytest.mark.parametrize("aggregator", ["noisy_mean", {"name": "banded_mean", "bands": 2}])
def test_a_paired_run_that_was_interrupted_ends_as_it_would_have(aggregator, tmp_path):
    cohort = {"name": "poisson", "rate": 0.5}
    values = config(
        privacy__noise_key="seed",
        privacy__paired=True,
        federation__cohort=cohort,
        server__aggregator=aggregator,
        privacy__record__epsilon=math.inf,
    )
    whole = run(values, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(values, out=tmp_path / "cut", callbacks=[Stop()])
    assert digest(resume(tmp_path / "cut")) == digest(whole)

"""The shipped task, from the package alone."""

import json

import tomli_w


def test_adult_trains_without_any_data_folder_and_beats_the_majority(fedsafe, tmp_path):
    inf = float("inf")
    values = {
        "rounds": 6,
        "federation": {"clients": 50, "cohort": {"rate": 0.4}},
        "privacy": {"record": {"epsilon": inf}, "client": {"epsilon": inf}},
        "assess": {"every": 6, "assessors": ["performance"]},
        "engine": {"name": "inline"},
    }
    (tmp_path / "adult.toml").write_text(tomli_w.dumps(values))
    command = fedsafe("run", "adult.toml", "--out", "run", "--json", env={"FEDSAFE_DATA_DIR": ""})
    assert command.code == 0, command.err
    printed = json.loads(command.out)
    low, _ = next(f["interval"] for f in printed["findings"] if f["metric"] == "performance.accuracy")
    assert low > 0.7638, "the share of the larger class"
    start = json.loads((tmp_path / "run" / "record.jsonl").read_text().splitlines()[0])
    assert start["task"]["train_records"] == 32_561
    assert start["task"]["evaluation_records"] == 16_281
    assert start["task"]["source"]["licence"] == "CC BY 4.0"

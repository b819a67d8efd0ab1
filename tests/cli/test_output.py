"""What a command prints is for a person in a pipe, or exactly one JSON object; its exit code is the verdict."""

import json
import subprocess
import sys

import pytest
from quiet_environment import QUIET

CLAIM_KEYS = {
    "unit", "epsilon", "delta", "adjacency", "adversary", "release", "sampler", "accountant", "horizon",
    "regime", "randomness", "assumptions", "not_covered",
}  # fmt: skip


def test_json_is_one_object_with_one_claim_for_each_unit(fedsafe, tiny_toml, tmp_path):
    command = fedsafe("run", tiny_toml(), "--out", "out", "--json")
    assert command.code == 0
    assert command.out.count("\n") == 1
    printed = json.loads(command.out, parse_constant=pytest.fail)
    assert {"run", "report", "rounds", "seconds", "accuracy", "claims", "findings"} <= set(printed)
    assert (tmp_path / printed["run"] / "record.jsonl").is_file()
    assert (tmp_path / printed["report"]).is_file()
    assert printed["rounds"] == 3
    assert printed["seconds"] > 0
    assert 0 <= printed["accuracy"] <= 1
    assert sorted(claim["unit"] for claim in printed["claims"]) == ["client", "record"]
    for claim in printed["claims"]:
        assert set(claim) >= CLAIM_KEYS
        assert claim["epsilon"] == pytest.approx(0.1, rel=2e-3)
        assert claim["epsilon"] <= 0.1
        assert claim["regime"] == "planned"
        assert "operating system" in claim["randomness"]
        assert claim["assumptions"]
        assert claim["not_covered"]
    for finding in printed["findings"]:
        assert {"metric", "status", "value", "interval", "n"} <= set(finding)
    accuracy = [finding for finding in printed["findings"] if finding["metric"] == "performance.accuracy"]
    assert accuracy[0]["value"] == printed["accuracy"]
    low, high = accuracy[0]["interval"]
    assert low < printed["accuracy"] < high
    assert accuracy[0]["n"] == 60
    assert "round   3/3" in command.err, "progress goes to standard error"


def test_a_reproducible_run_says_that_it_guarantees_nothing_to_those_who_know_the_seed(fedsafe, tiny_toml):
    printed = [
        json.loads(fedsafe("run", tiny_toml(), "--out", out, "--json", "--reproducible", *seed).out)
        for out, seed in (("one", ["--seed", 3]), ("two", ["--seed", 3]), ("three", ["--seed", 4]))
    ]
    for claim in printed[0]["claims"]:
        assert claim["randomness"] == "simulated: no guarantee against anyone who knows the seed"
    assert printed[0]["findings"] == printed[1]["findings"] != printed[2]["findings"]


def test_without_privacy_the_claims_say_none_and_not_infinity(fedsafe, tiny_toml, tmp_path):
    path = tiny_toml(privacy__record__epsilon=float("inf"), privacy__client__epsilon=float("inf"))
    command = fedsafe("run", path, "--out", "out", "--json")
    assert command.code == 0, command.err
    claims = json.loads(command.out, parse_constant=pytest.fail)["claims"]
    assert [claim["epsilon"] for claim in claims] == [None, None]
    assert all(claim["statement"].startswith("No ") for claim in claims)
    start = json.loads((tmp_path / "out" / "record.jsonl").read_text().splitlines()[0])
    assert start["plan"]["record"]["noise"] == start["plan"]["client"]["noise"] == 0.0
    shown = fedsafe("ledger", "show", "out")
    assert "planned epsilon none, realised none" in shown.out


def test_piped_output_is_plain_lines_that_say_what_is_claimed(fedsafe, tiny_toml):
    command = fedsafe("run", tiny_toml(), "--out", "out")
    assert command.code == 0
    assert command.err == ""
    assert "\x1b" not in command.out
    assert "\r" not in command.out
    for expected in (
        "tiny: 12 clients, 240 records",
        "round   3/3  accuracy 0.",
        "epsilon per record",
        "epsilon per client",
        "run     out\n",
        "report  out/report.html\n",
    ):
        assert expected in command.out
    assert max(map(len, command.out.splitlines())) < 140


def require(severity: str, op: str, threshold: float) -> list:
    metric = "performance.accuracy"
    return [{"metric": metric, "op": op, "threshold": threshold, "severity": severity}]


@pytest.mark.parametrize(
    ("severity", "op", "threshold", "code"),
    [
        ("must", ">=", 0.99, 3),
        ("must", ">=", 0.01, 0),
        ("should", ">=", 0.99, 0),
    ],
)
def test_a_must_that_fails_exits_with_3_and_is_named(
    fedsafe, tiny_toml, tmp_path, severity, op, threshold, code
):
    command = fedsafe("run", tiny_toml(assess__require=require(severity, op, threshold)), "--out", "out")
    assert command.code == code, command.err
    verdict = json.loads((tmp_path / "out" / "requirements.jsonl").read_text().splitlines()[-1])
    assert verdict["verdict"] == ("pass" if threshold == 0.01 else "fail")
    assert (tmp_path / "out" / "report.html").is_file()
    if code:
        assert len(command.err.splitlines()) == 1
        assert "performance.accuracy >= 0.99 is fail" in command.err
    else:
        assert command.err == ""


def test_a_must_that_could_not_be_measured_is_not_a_pass(fedsafe, tiny_toml):
    require = [{"metric": "robustness.attacked_accuracy", "op": ">=", "threshold": 0.0}]
    command = fedsafe("run", tiny_toml(assess__require=require), "--out", "out", "--json")
    assert command.code == 3
    assert "is unmeasured" in command.err
    assert json.loads(command.out)["requirements"][0]["verdict"] == "unmeasured"


def test_help_imports_nothing_heavy():
    heavy = ["torch", "ray", "flwr", "pandas", "numpy", "scipy", "matplotlib", "sklearn", "pydantic"]
    code = (
        "import sys\n"
        "from fedsafe.cli import main\n"
        "sys.argv = ['fedsafe', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    sys.stderr.write(','.join(sorted(set({heavy}) & set(sys.modules))))\n"
    )
    for words in (["--help"], ["run", "--help"], ["ledger", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=None, check=False
        )
        assert done.returncode == 0
        assert "Usage" in done.stdout
        assert done.stderr == ""


def test_the_command_works_as_a_user_starts_it(real_command, tmp_path):
    """A new interpreter, without the fork server of the other tests."""
    assert real_command("--help").returncode == 0
    done = real_command("run", "none.toml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "fedsafe: none.toml cannot be read: No such file or directory; name a TOML file\n"
    assert QUIET["OMP_NUM_THREADS"] == "1"

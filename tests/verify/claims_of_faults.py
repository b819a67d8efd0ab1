"""The planted faults of this folder: what each app claims, and which check has to find it."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAULTS = HERE / "faults"

AVERAGE: dict[str, Any] = {
    "level": "client",
    "clip": 1.0,
    "noise": 1.0,
    "sampler": "poisson",
    "rate": 0.2,
    "population": 100,
    "rounds": 20,
    "epsilon": 6.62,
    "delta": 1e-5,
}
ADAPTIVE = {**AVERAGE, "adaptive_clip": {"quantile": 0.5, "learning_rate": 0.2, "noise": 2.0}}
CLIENT: dict[str, Any] = {
    "level": "record",
    "clip": 1.0,
    "noise": 1.0,
    "sampler": "poisson",
    "rate": 0.25,
    "population": 120,
    "steps": 4,
    "rounds": 5,
    "learning_rate": 0.1,
    "epsilon": 8.08,
    "delta": 1e-5,
    "model": "faulty_clients:fresh_model",
    "client": {"data": "faulty_clients:records_of", "learning_rate_key": "lr"},
    "run_config": {"lr": 0.1},
}
REPORTS = {**CLIENT, "epsilon_metric": "epsilon"}

# Target: its claim, the group of checks that finds the fault, and the check that must fail.
PLANTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "faulty_averages:ClipsEachTensor": (AVERAGE, "clip", "clip over all tensors"),
    "faulty_averages:ClipsTheSum": (AVERAGE, "clip", "one client among many"),
    "faulty_averages:WeighsByExamples": (AVERAGE, "neighbours", "weights"),
    "faulty_averages:LetsNanPass": (AVERAGE, "bad", "one client sends a NaN"),
    "faulty_averages:SkipsEmptyCohorts": (AVERAGE, "empty", "empty cohort"),
    "faulty_averages:AdaptsTheWrongWay": (
        ADAPTIVE,
        "adaptive",
        "adaptive clip falls where no update reaches it",
    ),
    "faulty_averages:NoiseOfTheNextClip": (ADAPTIVE, "noise", "noise scale"),
    "faulty_averages:NoiseOfTheFirstClip": (ADAPTIVE, "adaptive", "noise follows the clip"),
    "faulty_averages:SameCohortsAfterARestart": (AVERAGE, "sampling", "cohorts after a restart"),
    # One average, two claims that are not true of it: cohorts of one size are no Poisson ones, and removing a
    # member of one moves the sum by two clips.
    "faulty_averages:DrawsACohortOfOneSize": (AVERAGE, "sampling", "cohorts"),
    "faulty_averages:Average": ({**AVERAGE, "adjacency": "replace-one"}, "epsilon", "claimed epsilon"),
    "faulty_clients:one_stream": (CLIENT, "reuse", "noise reuse"),
    "faulty_clients:stream_of_the_round": (CLIENT, "reuse", "noise reuse"),
    "faulty_clients:shuffled": (CLIENT, "sampling", "sampling"),
    "faulty_clients:nan_passes": (CLIENT, "bad", "records with NaN"),
    "faulty_clients:clips_apart": (CLIENT, "clip", "clip over all tensors"),
    "faulty_clients:accountant_of_a_round": (REPORTS, "accountant", "accountant over rounds"),
    "faulty_clients:accountant_of_a_process": (REPORTS, "accountant", "accountant over rounds"),
}

# What the faults are mutations of, and what therefore must pass.
RIGHT: dict[str, dict[str, Any]] = {
    "faulty_averages:Average": AVERAGE,
    "faulty_averages:Adaptive": ADAPTIVE,
    "faulty_clients:right": CLIENT,
    "faulty_clients:accountant": REPORTS,
}

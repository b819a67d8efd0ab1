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
FEW: dict[str, Any] = {**AVERAGE, "rate": 0.25, "population": 40, "epsilon": 8.08}
CAPPED = {**FEW, "weights": "capped", "cap": 50}
LOCAL: dict[str, Any] = {
    **FEW,
    "mechanism": "local",
    "adjacency": "replace-one",
    "epsilon": 31.0,
    "strategy": {"mods": ["faulty_mechanisms:local"]},
}
BANDED: dict[str, Any] = {
    **FEW,
    "mechanism": "banded",
    "rounds": 12,
    "epsilon": 4.38,
    "banded": {"coefficients": [1.0, 0.5, 0.375]},
}
TOGETHER: dict[str, Any] = {
    **FEW,
    "mechanism": "distributed",
    "epsilon": 31.0,
    "distributed": {"minimum": 4},
}


def uploads(mod: str) -> dict[str, Any]:
    """Local noise by another mod."""
    return {**LOCAL, "strategy": {"mods": [f"faulty_mechanisms:{mod}"] if mod else []}}


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
FIXED_SIZE = {**CLIENT, "sampler": "fixed", "size": 30, "adjacency": "replace-one", "epsilon": 60.0}
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
    # The sizes are as claimed, but a round takes every record exactly once.
    "faulty_clients:shuffled ": (FIXED_SIZE, "sampling", "independent draws"),
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
    "faulty_clients:fixed_size": FIXED_SIZE,
    "faulty_clients:accountant": REPORTS,
}

# The rules that are more than a noisy sum: a name, the target, and the rest as above.
MECHANISMS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    name: (f"faulty_mechanisms:{app}", claim, group, check)
    for name, app, claim, group, check in (
        ("CapsNothing", "CapsNothing", CAPPED, "neighbours", "weights"),
        ("CapsFromAbove", "CapsFromAbove", CAPPED, "neighbours", "impossible counts of examples"),
        ("DividesByTheWeights", "DividesByTheWeights", CAPPED, "neighbours", "absent clients"),
        ("noise_for_one_clip", "AddsUp", uploads("noise_for_one_clip"), "uploads", "noise of each client"),
        (
            "stream_of_the_round",
            "AddsUp",
            uploads("stream_of_the_round"),
            "uploads",
            "noise reuse among uploads",
        ),
        (
            "stream_of_the_client",
            "AddsUp",
            uploads("stream_of_the_client"),
            "uploads",
            "noise reuse among uploads",
        ),
        (
            "spares_one_clients_noise",
            "AddsUp",
            uploads("spares_one_clients_noise"),
            "uploads",
            "noise of each client",
        ),
        (
            "spares_one_clients_clip",
            "AddsUp",
            uploads("spares_one_clients_clip"),
            "uploads",
            "clip of each upload",
        ),
        ("first_record_alone", "AddsUp", uploads("first_record_alone"), "uploads", "uploads of bad updates"),
        ("NoisesForThem", "NoisesForThem", uploads(""), "uploads", "noise of each client"),
        ("IndependentNoise", "IndependentNoise", BANDED, "banded", "noise over rounds"),
        ("RepeatsItsNoise", "RepeatsItsNoise", BANDED, "banded", "noise over rounds"),
        (
            "ForgetsAfterARestart",
            "ForgetsAfterARestart",
            BANDED,
            "banded",
            "noise over rounds, a restart among them",
        ),
        ("ComesBackTooSoon", "ComesBackTooSoon", BANDED, "banded", "clients stay away"),
        ("NoiseForOneRound", "NoiseForOneRound", BANDED, "noise", "noise scale"),
        ("QuietInRoundTwo", "QuietInRoundTwo", BANDED, "rounds", "noise in each round"),
        ("OneShareIsMissing", "OneShareIsMissing", TOGETHER, "distributed", "share of each client"),
        ("SharesOfTheCohort", "SharesOfTheCohort", TOGETHER, "distributed", "noise of the survivors"),
        ("AlwaysReleases", "AlwaysReleases", TOGETHER, "distributed", "too few survivors"),
        ("WrapsAround", "WrapsAround", TOGETHER, "distributed", "no wrapping around"),
        ("RoundsUp", "RoundsUp", TOGETHER, "distributed", "rounded updates"),
        ("NoClipInRoundTwo", "NoClipInRoundTwo", FEW, "rounds", "clip in each round"),
        ("HalfNoiseInRoundTwo", "HalfNoiseInRoundTwo", FEW, "rounds", "noise in each round"),
        ("SparesOneClient", "SparesOneClient", FEW, "rounds", "clip of each client"),
        ("NoNoiseForNobody", "NoNoiseForNobody", FEW, "rounds", "noise in each round that nobody answers"),
        ("LeavesOneValueAlone", "LeavesOneValueAlone", FEW, "noise", "noise in each value"),
        ("QuietAfterARestart", "QuietAfterARestart", FEW, "reuse", "noise after a restart"),
        ("ClipsEachArrayRecord", "ClipsEachArrayRecord", FEW, "bad", "one client sends several ArrayRecords"),
    )
}
RIGHT_MECHANISMS = {
    "faulty_mechanisms:Capped": CAPPED,
    "faulty_mechanisms:AddsUp": LOCAL,
    "faulty_mechanisms:Banded": BANDED,
    "faulty_mechanisms:Together": TOGETHER,
}

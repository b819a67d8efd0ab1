"""A monitor: what is strange about an input of a released model, as p-values with a stated false-alarm rate.

It is fitted on public records that the model was not trained on, cut in three: detectors are fitted on the first part,
chosen and scaled on the second, and calibrated on the third. The scores of all detectors come together in one, which
is calibrated by itself, so that the false-alarm rate of the whole monitor is the stated one whatever the detectors are
(`docs/serving.md`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedsafe.data import Examples, InputSchema, Task
from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.rng import public_generator
from fedsafe.serve.calibration import fit_temperature
from fedsafe.serve.choosing import choose
from fedsafe.serve.conformal import Array, Calibration, Surprise, benjamini_hochberg
from fedsafe.serve.detectors import Detector, Seen, adversarial_detectors, candidates
from fedsafe.serve.detectors.base import Floats, probabilities_of
from fedsafe.serve.detectors.synthetic import strange
from fedsafe.serve.forward import Forward

OOD: Final = "ood"
ADVERSARIAL: Final = "adversarial"
COMBINED: Final = "combined"

_FEWEST = 200
_SHARES = (0.25, 0.15)  # fitting and choosing; the rest calibrates
_STRANGERS = 500  # of each family, to choose by


@dataclass(frozen=True, kw_only=True, eq=False)
class Checks:
    """What was found of some inputs.

    Attributes:
        p_values: Name to ``(n,)``: "ood" (from elsewhere), "adversarial" where that is looked for, and "combined", on
            which alone the false-alarm rate rests.
        outputs: ``(n, outputs)`` of the model.
        alarms: ``(n,)`` whether the combined p-value is at most the level.
        score: ``(n,)`` combined scores, for tests over time.
    """

    p_values: Mapping[str, Array]
    outputs: Array
    alarms: NDArray[np.bool_]
    score: Array

    def discoveries(self, level: float) -> NDArray[np.bool_]:
        """Alarms of this batch with a false discovery rate in place of a false-alarm rate."""
        return benjamini_hochberg(self.p_values[COMBINED], level)


@dataclass(frozen=True, kw_only=True, eq=False)
class Monitor:
    """See the module.

    Attributes:
        forward: The model.
        classes: Whether it classifies.
        level: False-alarm rate of the whole monitor.
        detectors: Kind, "ood" or "adversarial", to its detectors.
        scales: Kind to their surprises.
        calibrations: "ood", "adversarial" and "combined" to held-out scores.
        temperature: Of the confidence; 1 where nothing is classified.
        centre: ``(*inputs,)`` mean of the fitted records: where an explanation starts from.
        areas: How the detectors were chosen, see `fedsafe.serve.choosing.Choice`.
        facts: What it was fitted on: counts and seed.
    """

    forward: Forward
    classes: bool
    level: float
    detectors: Mapping[str, tuple[Detector, ...]]
    scales: Mapping[str, tuple[Surprise, ...]]
    calibrations: Mapping[str, Calibration]
    temperature: float
    centre: Floats
    areas: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        task: Task | InputSchema,
        reference: Examples,
        *,
        level: float = 0.05,
        seed: int = 0,
    ) -> "Monitor":
        """Fits a monitor.

        Args:
            model: In evaluation mode.
            task: Of the model, or the schema of a classifier's inputs.
            reference: Public labelled records that the model was not trained on. Their values are kept in the
                monitor: private records have no place here.
            level: False-alarm rate, in (0, 1).
            seed: Of the public randomness.

        Raises:
            ConfigError: The level is no share, the inputs are tokens, or the records do not fit the schema.
            CalibrationError: There are too few records.
            ModelError: The model is in training mode, or an output is missing.
        """
        schema = task.schema if isinstance(task, Task) else task
        classes = task.kind in ("binary", "multiclass") if isinstance(task, Task) else True
        if schema.vocabulary is not None or reference.y.ndim != 1:
            raise ConfigError("a monitor looks at records of numbers, and these inputs are tokens")
        if reference.x.shape[1:] != tuple(schema.shape):
            raise ConfigError(
                f"the records have the shape {reference.x.shape[1:]}, the schema {tuple(schema.shape)}"
            )
        if len(reference) < _FEWEST:
            raise CalibrationError(f"a monitor needs {_FEWEST} public records or more, not {len(reference)}")
        forward, rng = Forward(model, tuple(schema.shape)), public_generator(seed, "monitor")
        first, second, third = _cut(len(reference), rng)
        y = reference.y if classes else np.zeros(len(reference), np.int64)
        known = look(forward, reference.x[first], classes)
        held = look(forward, reference.x[second], classes)
        made = strange(held.inputs[:_STRANGERS], schema, rng)
        strangers = {name: look(forward, x.reshape(-1, *schema.shape), classes) for name, x in made.items()}
        choice = choose(candidates(known, y[first], schema, rng), held, strangers, rng)
        against = tuple(adversarial_detectors(known, y[first], schema, rng))
        detectors = {OOD: choice.detectors, **({ADVERSARIAL: against} if against else {})}
        scales = {OOD: choice.scales}
        if against:
            scales[ADVERSARIAL] = tuple(Surprise.of(each.score(held)) for each in against)
        rest = look(forward, reference.x[third], classes)
        scores = combine(rest, detectors, scales)
        calibrations = {name: Calibration.of(values) for name, values in scores.items()}
        calibrations[COMBINED].check_level(level)
        return cls(
            forward=forward,
            classes=classes,
            level=float(level),
            detectors=detectors,
            scales=scales,
            calibrations=calibrations,
            temperature=fit_temperature(rest.outputs, y[third]) if classes else 1.0,
            centre=np.asarray(reference.x[first].mean(axis=0), np.float32),
            areas=choice.areas,
            facts={
                "fitted_on": len(first),
                "chosen_on": len(second),
                "calibrated_on": len(third),
                "seed": seed,
            },
        )

    def check(self, x: NDArray[Any]) -> Checks:
        """What is strange about some inputs.

        Args:
            x: ``(n, *inputs)`` encoded inputs, finite.

        Raises:
            ModelError: The model does not give one row of outputs for each.
        """
        seen = look(self.forward, x, self.classes)
        scores = combine(seen, self.detectors, self.scales)
        p_values = {name: self.calibrations[name].p_values(values) for name, values in scores.items()}
        # Outputs that are not finite are never inliers.
        return Checks(
            p_values=p_values,
            outputs=seen.outputs,
            alarms=p_values[COMBINED] <= self.level,
            score=scores[COMBINED],
        )

    def probabilities(self, outputs: Array) -> Array:
        """``(n, classes)`` calibrated probabilities of ``(n, outputs)`` logits."""
        return probabilities_of(outputs, self.temperature)


def look(forward: Forward, x: NDArray[Any], classes: bool) -> Seen:
    """Inputs ``(n, *inputs)`` with what the model makes of them."""
    shape = forward.shape
    given = np.asarray(x, np.float32)
    outputs, features = forward(given)
    return Seen(
        given.reshape(len(given), -1),
        outputs,
        features,
        classes,
        lambda flat: forward(flat.reshape(-1, *shape))[0],
    )


def combine(
    seen: Seen, detectors: Mapping[str, tuple[Detector, ...]], scales: Mapping[str, tuple[Surprise, ...]]
) -> dict[str, Array]:
    """``(n,)`` scores by kind, the largest surprise of its detectors, and "combined", the largest of all."""
    found: dict[str, Array] = {}
    for kind, group in detectors.items():
        values = [scale(detector.score(seen)) for detector, scale in zip(group, scales[kind], strict=True)]
        found[kind] = values[0] if len(values) == 1 else np.maximum.reduce(values)
    values = list(found.values())
    found[COMBINED] = values[0] if len(values) == 1 else np.maximum.reduce(values)
    return found


def _cut(
    count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    order = rng.permutation(count).astype(np.int64)
    one, two = int(_SHARES[0] * count), int((_SHARES[0] + _SHARES[1]) * count)
    return np.sort(order[:one]), np.sort(order[one:two]), np.sort(order[two:])

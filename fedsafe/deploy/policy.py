"""What a client allows: a file that is its own, and that no server can change.

The gate reads it when it starts, and holds every experiment to it before anything is released
(``docs/decisions/0021-the-gate.md``)::

    format = "fedsafe.policy/1"
    client = "cleveland"
    server_noise = "trusts the server"

    [budget.record]
    epsilon = 4.0
    delta = 1e-4
    period_days = 365.0

    [mechanism]
    least_noise = 0.5

    [code]
    apps = ["9f86d081..."]
    fedsafe = ["60303ae2..."]

What it holds is what the client can check, the noise that it adds itself. Noise that the server adds is not checked
here, which ``server_noise`` says: there is no other value.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError

from fedsafe.aggregation.secure import SecureParameters
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.sections import Count, Delta, NotNegative, Positive, Rate, Section

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RecordBudget(Section):
    """The most that all runs of a sliding period may spend together of one person's records.

    A run counts with its whole planned epsilon and delta, from its first release until ``period_days`` after its last.
    Sums of both hold for runs whose plans were chosen from what earlier runs released, one after the other (basic
    composition; Rogers et al., 2016, section 3) or at once (Haney et al., 2023). What was spent before a period is
    outside of its figure, and adds to it.
    """

    epsilon: Positive
    delta: Delta
    period_days: Positive = 365.0
    records_per_person: Count = 1


class BudgetPolicy(Section):
    """Budgets, by unit. A client holds records; the client level is the server's."""

    record: RecordBudget


class MechanismPolicy(Section):
    """How records may be released: DP-SGD at this client."""

    least_noise: Positive = 0.3
    largest_rate: Rate = 1.0
    largest_steps_per_round: Count = 10_000
    arithmetic: Literal["float32", "grid"] = "float32"


class ModelPolicy(Section):
    """Which models may be trained: names of FedSafe's own, and how large."""

    names: list[str] = Field(default_factory=lambda: ["linear", "logistic", "mlp", "cnn", "resnet"])
    most_parameters: Count = 10_000_000


class MetricsPolicy(Section):
    """What else may leave: the noised mean score of this client's records, or, without noise, scores and losses."""

    allowed: list[Literal["noised_score", "score", "losses"]] = Field(default_factory=list)


class CodePolicy(Section):
    """Which code the server may name: bundles and FedSafe's own code by digest, anything else by import path.

    ``experiments``, where it is not empty, lists the only experiments that are taken part in, by digest.
    """

    apps: list[Digest] = Field(default_factory=list)
    fedsafe: list[Digest] = Field(default_factory=list)
    imports: list[str] = Field(default_factory=list)
    experiments: list[Digest] = Field(default_factory=list)


class TimingPolicy(Section):
    """A reply leaves a multiple of ``answer_multiple`` seconds after its request: its time follows batch sizes."""

    answer_multiple: NotNegative = 1.0


class IsolationPolicy(Section):
    """As which user of the operating system an allowed app with code of its own runs, and for how long at most."""

    user: str = "nobody"
    seconds: Positive = 120.0
    memory_megabytes: Count = 4096


class SecurePolicy(Section):
    """Secure aggregation: the server is to see sums of updates alone.

    With ``required`` no update leaves by itself. ``least_honest`` is how many honest clients a sum must have for
    certain: a run whose minimum without its corrupt clients is smaller is not taken part in. ``least_corrupt`` is how
    many clients of any one round the noise must reckon with as working with the server, which draws who is in it.
    """

    required: bool = False
    least_honest: Annotated[int, Field(ge=2)] = 2
    least_corrupt: Annotated[int, Field(ge=0)] = 0


class Policy(Section):
    """The whole file."""

    format: Literal["fedsafe.policy/1"] = "fedsafe.policy/1"
    client: Annotated[str, Field(min_length=1)]
    server_noise: Literal["trusts the server"] = "trusts the server"
    budget: BudgetPolicy
    mechanism: MechanismPolicy = MechanismPolicy()
    model: ModelPolicy = ModelPolicy()
    metrics: MetricsPolicy = MetricsPolicy()
    code: CodePolicy = CodePolicy()
    secure: SecurePolicy = SecurePolicy()
    timing: TimingPolicy = TimingPolicy()
    isolation: IsolationPolicy = IsolationPolicy()

    def to_toml(self) -> str:
        """The file, with every default written out."""
        return tomli_w.dumps(self.model_dump())


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: It cannot be read, is of another format, or has an unknown key or a value that cannot be.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the policy {path} cannot be read: {error.strerror}; a gate needs one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the policy {path} is not valid TOML: {error}") from error
    return make_policy(values, str(path))


def make_policy(values: dict[str, Any], named: str = "policy") -> Policy:
    """A policy from plain values.

    Raises:
        ConfigError: See :func:`read_policy`.
    """
    try:
        return Policy.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"{named}: {where} = {problem['input']!r}: {problem['msg'].lower()}") from None


def planned_epsilon(plan: PrivacyPlan, client: int) -> float:
    """Epsilon, at the plan's delta, of all that a client may release under a plan."""
    return plan.record_epsilon(plan.rounds, plan.record.cap_of(client))


def require_allowed(
    policy: Policy, plan: PrivacyPlan, *, client: int, parameters: int, released: tuple[str, ...] = ()
) -> float:
    """Hold a plan to a policy, except for what earlier runs have spent.

    Args:
        policy: The client's own.
        plan: As the client came to it, by itself.
        client: Its number.
        parameters: Of the model.
        released: What leaves un-noised because of the aggregator (``fedsafe.aggregation.released_by``).

    Returns:
        The planned epsilon.

    Raises:
        Refused: With the first reason that there is.
    """
    level, own = plan.record, policy.budget.record
    if parameters > policy.model.most_parameters:
        raise Refused(
            Refusal.MODEL_TOO_LARGE, f"{parameters} parameters, {policy.model.most_parameters} allowed"
        )
    if not level.private or level.noise < policy.mechanism.least_noise:
        raise Refused(
            Refusal.TOO_LITTLE_NOISE,
            f"noise multiplier {level.noise:g}, at least {policy.mechanism.least_noise:g} asked for",
        )
    if policy.mechanism.arithmetic == "grid" and level.grid_bits is None:
        raise Refused(Refusal.TOO_LITTLE_NOISE, "noise in single precision, and the policy wants a grid")
    rate = level.rate
    if level.batch_size is not None and level.least_records:
        rate = level.batch_size / level.least_records
    if rate > policy.mechanism.largest_rate:
        raise Refused(
            Refusal.RATE_TOO_HIGH, f"sampling rate {rate:g}, {policy.mechanism.largest_rate:g} allowed"
        )
    if level.steps > policy.mechanism.largest_steps_per_round:
        raise Refused(
            Refusal.RATE_TOO_HIGH,
            f"{level.steps} steps a round, {policy.mechanism.largest_steps_per_round} allowed",
        )
    _require_metrics(policy, plan, released)
    if level.group < own.records_per_person:
        raise Refused(
            Refusal.BUDGET_SPENT,
            f"the plan protects {level.group} records of a person together, the policy wants {own.records_per_person}",
        )
    epsilon = planned_epsilon(plan, client)
    if not epsilon <= own.epsilon or not level.delta <= own.delta:
        raise Refused(
            Refusal.BUDGET_SPENT,
            f"planned epsilon {epsilon:.4g} at delta {level.delta:g}, {own.epsilon:g} at {own.delta:g} allowed",
        )
    return epsilon


def require_secure(policy: Policy, parameters: SecureParameters | None) -> None:
    """Hold the secure sums of an experiment to a policy.

    Args:
        policy: The client's own.
        parameters: Of the sums; None where each update is sent by itself.

    Raises:
        Refused: The policy wants sums and there are none, or more honest clients in them, or more corrupt ones
            reckoned with.
    """
    wanted = policy.secure
    if parameters is None:
        if wanted.required:
            raise Refused(
                Refusal.SECURE_AGGREGATION_REQUIRED,
                "secure.required = true, and the experiment has aggregation.secure = false",
            )
        return
    honest = parameters.minimum - parameters.corrupt
    if honest < wanted.least_honest:
        raise Refused(
            Refusal.TOO_FEW_HONEST_CLIENTS,
            f"sums over a minimum of {parameters.minimum} clients, {parameters.corrupt} of them corrupt, have {honest} "
            f"honest ones: secure.least_honest = {wanted.least_honest}",
        )
    if parameters.corrupt < wanted.least_corrupt:
        raise Refused(
            Refusal.TOO_FEW_HONEST_CLIENTS,
            f"the noise of sums reckons with {parameters.corrupt} clients that work with the server: "
            f"secure.least_corrupt = {wanted.least_corrupt}",
        )


def _require_metrics(policy: Policy, plan: PrivacyPlan, released: tuple[str, ...]) -> None:
    allowed = set(policy.metrics.allowed)
    if plan.evaluation is not None:
        asked = "noised_score" if plan.evaluation.noised else "score"
        if asked not in allowed:
            raise Refused(Refusal.METRIC_NOT_ALLOWED, f"the server wants {asked}, not in metrics.allowed")
    if released and "losses" not in allowed:
        raise Refused(
            Refusal.METRIC_NOT_ALLOWED, f"leaves without noise: {'; '.join(released)}; not in metrics.allowed"
        )

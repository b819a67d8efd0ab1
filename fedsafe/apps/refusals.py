"""Why a client refuses: a fixed list, so that a refusal says nothing but which line of its policy was met.

The details stay in the client's own log and ledger.
"""

from enum import StrEnum

from flwr.app import Error

# Beyond the codes that Flower has for its own errors.
_FIRST_CODE = 1000


class Refusal(StrEnum):
    """The whole list. The order gives each its code: new ones go to the end."""

    APP_NOT_ALLOWED = "app_not_allowed"
    CODE_NOT_ALLOWED = "code_not_allowed"
    EXPERIMENT_NOT_ALLOWED = "experiment_not_allowed"
    BUDGET_SPENT = "budget_spent"
    TOO_LITTLE_NOISE = "too_little_noise"
    RATE_TOO_HIGH = "rate_too_high"
    MODEL_TOO_LARGE = "model_too_large"
    METRIC_NOT_ALLOWED = "metric_not_allowed"
    OUTSIDE_PLAN = "outside_plan"
    ROUND_ALREADY_RELEASED = "round_already_released"
    DATA_NOT_AS_AGREED = "data_not_as_agreed"
    MESSAGE_NOT_UNDERSTOOD = "message_not_understood"
    FAILED = "failed"
    SECURE_AGGREGATION_REQUIRED = "secure_aggregation_required"
    TOO_FEW_HONEST_CLIENTS = "too_few_honest_clients"
    SECURE_ROUND_REFUSED = "secure_round_refused"


def error_of(refusal: Refusal) -> Error:
    """The error reply of a refusal."""
    return Error(code=_FIRST_CODE + list(Refusal).index(refusal), reason=refusal.value)


def refusal_in(error: Error) -> Refusal | None:
    """The refusal that an error reply carries; None where it is another error."""
    listed = list(Refusal)
    place = error.code - _FIRST_CODE
    return listed[place] if 0 <= place < len(listed) and error.reason == listed[place].value else None

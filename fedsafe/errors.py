"""Every error that FedSafe raises on purpose.

The tree::

    FedSafeError
    ├── ConfigError          an option is unknown, of the wrong type, or contradicts another
    ├── DataError            a data file, schema, column or partition cannot be used
    ├── ModelError           a model cannot be trained privately as it is
    ├── PrivacyError
    │   ├── CalibrationError no noise meets the target
    │   ├── PlanViolation    an event outside the plan was asked for, and refused
    │   │   └── BudgetSpent  what is left of an adaptive budget does not pay for the next round
    │   ├── LedgerError      the ledger is truncated, older than the record, or edited
    │   └── SecureAggregationError  a message of secure aggregation breaks the protocol, and was refused
    │       └── RoundAborted        too few clients are left: nothing was unmasked
    ├── RecordError          a run folder cannot be read, or is in use
    └── EngineError          a worker or grid failed

A message says what is wrong, the value, and what to do. The command line prints it as one line and exits
with a code that is not zero.
"""

from collections.abc import Iterable


class FedSafeError(Exception):
    """The root: catching it catches everything that FedSafe raises on purpose."""


class ConfigError(FedSafeError):
    """An option is unknown, of the wrong type, or contradicts another."""


class DataError(FedSafeError):
    """A data file, schema, column or partition cannot be used."""


class ModelError(FedSafeError):
    """A model cannot be trained privately as it is."""


class PrivacyError(FedSafeError):
    """A privacy rule would be broken."""


class CalibrationError(PrivacyError):
    """No noise meets the target."""


class PlanViolation(PrivacyError):
    """An event outside the plan was asked for, and refused."""


class BudgetSpent(PlanViolation):
    """What is left of an adaptive budget does not pay for the next round: a run ends here."""


class LedgerError(PrivacyError):
    """The ledger is truncated, older than the record, or edited."""


class SecureAggregationError(PrivacyError):
    """A message of secure aggregation breaks the protocol, and was refused."""


class RoundAborted(SecureAggregationError):
    """Too few clients of a secure aggregation are left: nothing was unmasked.

    Args:
        message: Why.
        named: Clients that are at fault for certain.
    """

    def __init__(self, message: str, named: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.named = tuple(named)


class RecordError(FedSafeError):
    """A run folder cannot be read, or is in use."""


class EngineError(FedSafeError):
    """A worker or grid failed."""

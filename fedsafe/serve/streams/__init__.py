"""What follows the decisions of a guarded model over time, by tests that may be looked at after each of them."""

from fedsafe.serve.streams.exchangeability import ExchangeabilityTest
from fedsafe.serve.streams.means import MeanTest
from fedsafe.serve.streams.monitoring import Expected, StreamMonitor
from fedsafe.serve.streams.period import PeriodReport, period_report
from fedsafe.serve.streams.reading import open_stream
from fedsafe.serve.streams.sequences import EmpiricalBernstein

__all__ = [
    "EmpiricalBernstein",
    "ExchangeabilityTest",
    "Expected",
    "MeanTest",
    "PeriodReport",
    "StreamMonitor",
    "open_stream",
    "period_report",
]

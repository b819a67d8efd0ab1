"""A released model that guards itself: what looks at each prediction, and the service around it."""

from fedsafe.serve.decision import Decision, Policy
from fedsafe.serve.decision_log import DecisionLog, LogHead, read_log, verify_log
from fedsafe.serve.monitor import Checks, Monitor
from fedsafe.serve.monitor_files import load_monitor, save_monitor
from fedsafe.serve.opening import open_guard
from fedsafe.serve.pipeline import Guard, Release
from fedsafe.serve.published import monitor_findings

__all__ = [
    "Checks",
    "Decision",
    "DecisionLog",
    "Guard",
    "LogHead",
    "Monitor",
    "Policy",
    "Release",
    "load_monitor",
    "monitor_findings",
    "open_guard",
    "read_log",
    "save_monitor",
    "verify_log",
]

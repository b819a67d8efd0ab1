"""Runs: configuration, composition, the run itself, and going on with one that was interrupted."""

from fedsafe.runs.callbacks import Callback
from fedsafe.runs.config import Config, make_config, read_config
from fedsafe.runs.result import Run
from fedsafe.runs.resume import resume
from fedsafe.runs.run import run

__all__ = ["Callback", "Config", "Run", "make_config", "read_config", "resume", "run"]

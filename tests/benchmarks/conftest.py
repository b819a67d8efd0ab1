"""The scripts of ``benchmarks/`` and their apps are within reach."""

import sys
from pathlib import Path

_SCRIPTS = Path(__file__).parents[2] / "benchmarks"
sys.path += [str(_SCRIPTS), str(_SCRIPTS / "apps" / "nothing")]

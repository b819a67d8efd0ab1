"""The scripts of ``benchmarks/`` are within reach: tests start Flower's processes as the benchmark does."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

"""Environment of processes that tests start: one thread each, and the tests' own modules within reach."""

from pathlib import Path

TESTS = Path(__file__).parent
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}

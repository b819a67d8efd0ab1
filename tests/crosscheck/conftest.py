"""Peers for cross-checks: `make crosscheck` installs them here; without them these tests skip."""

import sys
from pathlib import Path

# Behind everything else, so that nothing of ours is replaced.
sys.path.append(str(Path(__file__).parent / ".libraries"))

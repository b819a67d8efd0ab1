"""The full lines of a model that guards itself: its monitor, streams, and the service under load.

    python benchmarks/accept_serve.py                          # everything, about fifteen minutes
    python benchmarks/accept_serve.py accept_serve_service     # this part again, the others as they were last run

Writes ``results/serve.json``; reads MNIST through ``FEDSAFE_DATA_DIR``.
"""

import sys

from parts import chosen, gather

PARTS = ("accept_serve_monitor", "accept_serve_streams", "accept_serve_service")

if __name__ == "__main__":
    sys.exit(gather("serve", PARTS, again=chosen(PARTS, sys.argv[1:])))

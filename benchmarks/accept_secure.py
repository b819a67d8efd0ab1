"""The full lines of secure aggregation: the protocol, a real SuperLink, and the platform.

    python benchmarks/accept_secure.py                              # everything
    python benchmarks/accept_secure.py accept_secure_platform       # this part again, the others as they were

Writes ``results/secure.json``.
"""

import sys

from parts import chosen, gather

PARTS = ("accept_secure_protocol", "accept_secure_deploy", "accept_secure_platform")

if __name__ == "__main__":
    sys.exit(gather("secure", PARTS, again=chosen(PARTS, sys.argv[1:])))

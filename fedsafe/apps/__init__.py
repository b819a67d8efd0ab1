"""The two apps that Flower loads by name, for its own simulation engine and for SuperLinks and SuperNodes.

``server:app`` runs the rounds of :mod:`fedsafe.runs` over Flower's grid, ``client:app`` trains one client for one
message. The bundle that Flower uploads holds no code: every node runs the FedSafe that is installed there (see
``docs/decisions/0006-flower-bundle.md``).
"""

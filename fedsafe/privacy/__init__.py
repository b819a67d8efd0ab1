"""Privacy: what bounds, samples, adds noise, accounts, plans, claims and records.

Clipping, sampling, mechanisms and accounting do not know each other; they meet in ``plan``.
"""

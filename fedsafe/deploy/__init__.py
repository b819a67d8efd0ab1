"""Real federations: what each side is given, what each side checks, and the gate that stands before a client's records.

One file for one thing: :mod:`certificates` and :mod:`admission` say who may take part, :mod:`superlink` starts the
server, :mod:`driving` drives a run from there, :mod:`check` finds what is wrong before the first round. The guide is
``docs/deploy.md``.
"""

"""Alignment: whose preferences a model follows, learned from people who keep their answers."""

"""Stated principles, as tests of behaviour."""

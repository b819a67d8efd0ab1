"""What a run was given that its configuration cannot hold."""

IMPORT_FOLDERS = "private/import_folders.jsonl"
"""The folders that import paths of the configuration were looked up in."""

GIVEN_IN_PYTHON = {"name": "given in Python"}
"""Stands in the configuration for an object that no file can hold."""

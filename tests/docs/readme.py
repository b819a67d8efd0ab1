"""The README, taken apart: its blocks, commands, tables and settings."""

import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
CODE = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", PROSE)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section, without its head."""
    _, table = section(title).split("\n|", 1)
    lines = [line for line in f"|{table}".split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(*programs: str) -> list[list[str]]:
    """The words of the commands in the blocks without a language, less leading variables."""
    lines = [line for language, code in BLOCKS if not language for line in code.splitlines()]
    words = [shlex.split(re.sub(r"^(\w+=\S+ )+", "", line), comments=True) for line in lines if line]
    return [each for each in words if each and each[0] in programs]


def settings() -> list[str]:
    """What stands in the prose as ``a.b = value``."""
    return [code for code in CODE if re.match(r"[a-z_]+(\.[a-z_]+)* = ", code)]

"""The guide to deployment and the README's walk-through name commands, options, files and reasons that are there."""

import re

import pytest
import typer
from readme import ROOT

from fedsafe.apps.refusals import Refusal
from fedsafe.cli.deploy import deploy_app
from fedsafe.deploy import admission, certificates

GUIDE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "fedsafe" / "deploy" / "templates" / "README.md.txt").read_text(encoding="utf-8")
DOCUMENTS = {"guide": GUIDE, "readme": README, "page": PAGE}
COMMANDS = typer.main.get_command(deploy_app).commands


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_and_option_is_there(document):
    text = re.sub(r"\s+", " ", DOCUMENTS[document])
    found = re.findall(r"fedsafe deploy (\w+)([^`#|;]*)", text)
    assert len(found) >= 4
    for command, words in found:
        assert command in COMMANDS, command
        options = {name for each in COMMANDS[command].params for name in each.opts}
        for option in re.findall(r"(?<![\w-])--[a-z-]+", words.split(" fedsafe ")[0]):
            assert option in options, (command, option)


def test_every_reason_is_explained_and_no_other():
    table = GUIDE.split("## Read a refusal")[1].split("Before that, at the door")[0]
    named = [
        reason
        for row in table.splitlines()
        if row.startswith("| `")
        for reason in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(named) == sorted(Refusal)


def test_what_the_door_says_is_what_the_guide_explains():
    table = GUIDE.split("Before that, at the door")[1].split("## ")[0]
    said = " ".join(admission.__loader__.get_source(admission.__name__).split('"'))
    said += certificates.__loader__.get_source(certificates.__name__)
    said = re.sub(r"\s+", " ", said)
    quoted = [row.split("|")[1].strip(" `") for row in table.splitlines() if row.startswith("| `")]
    assert len(quoted) == 6
    for text in quoted:
        for part in text.split("..."):
            words = re.sub(r"^its ca\.pem is of", "ca.pem is of", part.strip())
            assert words in said, words


def test_the_files_that_it_names_are_there():
    for name in re.findall(r"`((?:docs|docker)/[\w./-]+)`", GUIDE):
        assert (ROOT / name).exists(), name

"""PandaLM's human test set: which of two answers to an instruction three annotators prefer (Wang and others, 2024)."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fedsafe.data.dataset import Source, Task
from fedsafe.data.options import one_of, whole
from fedsafe.data.preference_task import Items, preference_task
from fedsafe.data.rated_pairs import Pairs
from fedsafe.data.sources import RemoteFile, obtain
from fedsafe.data.text_features import FEATURES, embed
from fedsafe.errors import DataError

_FILE = "testset-v1.json"
ORIGINAL: Mapping[str, RemoteFile] = {
    _FILE: RemoteFile(
        url="https://raw.githubusercontent.com/WeOpenML/PandaLM/3871806/data/testset-v1.json",
        sha256="cc154f9067c7382d7ea86f8f246511a5e1ac87e1fddd845c5938d789505b07a4",
        size=937_899,
    )
}
ANNOTATORS = ("annotator1", "annotator2", "annotator3")
_OUTCOMES = {1: 1, 2: 0, 0: 2}  # as the file says it: 1 the first answer, 2 the second, 0 neither
SOURCE = Source(
    name="PandaLM human test set (Yidong Wang and others, 2024)",
    licence="Apache-2.0",
    url="https://github.com/WeOpenML/PandaLM",
    note="Published research data. A record is what one of three annotators said of one pair of answers.",
)


def load_pandalm(
    *,
    features: str = "minilm",
    ties: str = "keep",
    seed: int = 0,
    environment: Mapping[str, str] = os.environ,
    original: Mapping[str, RemoteFile] = ORIGINAL,
) -> Task:
    """The task ``"pandalm"``: which of two answers an annotator prefers, or neither.

    999 pairs of answers by models of seven billion parameters, each judged by all three annotators, who are the
    holders, ``"annotator"``. The features of an answer are the sentence vector of instruction, input and answer in one
    text. A quarter of the instructions is held out, with all of their answers.

    Args:
        features: ``"minilm"``: vectors of the last layer; ``"minilm-layers"``: of all layers.
        ties: ``"keep"``: three classes; ``"drop"``: pairs of which neither is preferred are left out.
        seed: Decides which instructions are held out.
        environment: Variables that name folders.
        original: The file.

    Raises:
        ConfigError: If an option is no such value.
        DataError: If the file is not what it should be, cannot be had, or the extra ``text`` is not installed.
    """
    one_of(features, [*FEATURES], "task.features")
    one_of(ties, ("keep", "drop"), "task.ties")
    seed = whole(seed, "task.seed", least=0)
    content = obtain(environment, "pandalm_human", original, "The human test set of PandaLM")[_FILE]
    records = _records(content)
    shown = [
        (record[answer], f"{record['instruction']}\n{record['input']}".strip())
        for record in records
        for answer in ("response1", "response2")
    ]
    number = {item: at for at, item in enumerate(dict.fromkeys(shown))}
    said = [
        (annotator, number[shown[2 * at]], number[shown[2 * at + 1]], _OUTCOMES[record[annotator]])
        for annotator in ANNOTATORS
        for at, record in enumerate(records)
    ]
    said = [pair for pair in said if pair[1] != pair[2]]  # the same text twice is no comparison
    who, first, second, outcomes = zip(*said, strict=True)
    texts = [f"{prompt}\n{answer}" for answer, prompt in number]
    return preference_task(
        "pandalm",
        Items(
            features=embed(texts, layers=FEATURES[features], environment=environment),
            names=tuple(answer for answer, _ in number),
            lengths=np.array([len(answer) for answer, _ in number], np.float64),
            blocks=tuple(prompt for _, prompt in number),
        ),
        Pairs(
            annotators=np.array(who),
            first=np.array(first, np.int64),
            second=np.array(second, np.int64),
            outcomes=np.array(outcomes, np.int64),
        ),
        source=replace(SOURCE, sha256=original[_FILE].sha256),
        ties=ties == "keep",
        evaluation_public=True,
        seed=seed,
    )


def _records(content: bytes) -> list[dict[str, Any]]:
    """The pairs of the file, once each has its texts and the three outcomes.

    Six answers, "True" and "False", are written there as true and false.
    """
    try:
        records = json.loads(content)
    except ValueError as error:
        raise DataError(f"{_FILE} is not JSON: {error}.") from error
    answers = ("response1", "response2")
    for at, record in enumerate(records):
        record |= {key: str(record[key]) for key in answers if isinstance(record.get(key), bool)}
        absent = [key for key in ("instruction", "input", *answers) if not isinstance(record.get(key), str)]
        absent += [key for key in ANNOTATORS if record.get(key) not in _OUTCOMES]
        if absent:
            raise DataError(f"Pair {at} (counted from 0) of {_FILE} has no usable {absent[0]}.")
    found: list[dict[str, Any]] = records
    return found

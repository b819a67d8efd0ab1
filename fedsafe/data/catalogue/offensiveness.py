"""POPQUORN: how offensive 262 people find 1,500 comments, and who these people say they are (Pei and Jurgens, 2023)."""

import io
import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fedsafe.data.dataset import Source, Task
from fedsafe.data.options import one_of, whole
from fedsafe.data.preference_task import MOST, Items, preference_task
from fedsafe.data.rated_pairs import Ratings
from fedsafe.data.sources import RemoteFile, obtain
from fedsafe.data.text_features import FEATURES, embed
from fedsafe.errors import DataError

_FILE = "raw_data.csv"
ORIGINAL: Mapping[str, RemoteFile] = {
    _FILE: RemoteFile(
        url="https://raw.githubusercontent.com/Jiaxin-Pei/Potato-Prolific-Dataset/dbb118c/dataset/offensiveness/"
        "raw_data.csv",
        sha256="fb0589093d45da76bf4ef4d0abff679b540bdd5b17af5764913b3ccd0a069e1e",
        size=3062770,
    )
}
GROUPS = ("gender", "race", "age", "education")
SOURCE = Source(
    name="POPQUORN, offensiveness (Jiaxin Pei and David Jurgens, 2023)",
    licence="not stated",
    url="https://github.com/Jiaxin-Pei/Potato-Prolific-Dataset",
    note=(
        "Published research data. A record is a pair of comments that one person rated differently: one rating is in "
        "many of that person's pairs. People with fewer than 10 training pairs are left out."
    ),
)


def load_offensiveness(
    *,
    features: str = "minilm-layers",
    ties: str = "drop",
    seed: int = 0,
    most: int = MOST,
    environment: Mapping[str, str] = os.environ,
    original: Mapping[str, RemoteFile] = ORIGINAL,
) -> Task:
    """The task ``"offensiveness"``: which of two comments a person finds less offensive.

    Everybody rated about 50 comments from 1 to 5; of two that a person rated differently the one with the lower rating
    is preferred. The features are sentence vectors (:func:`fedsafe.data.text_features.embed`); the holders are
    ``"annotator"``, the groups gender, race, age and education. A quarter of the comments is held out.

    Args:
        features: ``"minilm-layers"``: of all layers; ``"minilm"``: of the last, which says less of how a thing is put.
        ties: ``"keep"`` for a third class, of comments with the same rating; or ``"drop"``.
        seed: Decides which comments are held out.
        most: At most so many pairs of a person for training, and for evaluation.
        environment: Variables that name folders.
        original: The file of ratings.

    Raises:
        ConfigError: If an option is no such value.
        DataError: If the file is not what it should be, cannot be had, or the extra ``text`` is not installed.
    """
    import pandas as pd

    one_of(features, [*FEATURES], "task.features")
    one_of(ties, ("drop", "keep"), "task.ties")
    seed, most = whole(seed, "task.seed", least=0), whole(most, "task.most")
    content = obtain(environment, "popquorn_offensiveness", original, "POPQUORN")[_FILE]
    frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    absent = [name for name in ("user_id", "text", "offensiveness", *GROUPS) if name not in frame]
    if absent:
        raise DataError(f"POPQUORN lacks the columns {', '.join(absent)}.")
    texts = tuple(sorted(set(frame["text"])))
    number = {text: at for at, text in enumerate(texts)}
    people = frame.drop_duplicates("user_id")
    return preference_task(
        "offensiveness",
        Items(
            features=embed(texts, layers=FEATURES[features], environment=environment),
            names=texts,
            lengths=np.array([len(text) for text in texts], np.float64),
        ),
        Ratings(
            annotators=frame["user_id"].to_numpy(np.str_),
            items=np.array([number[text] for text in frame["text"]], np.int64),
            values=-frame["offensiveness"].to_numpy(np.float64),
        ),
        source=replace(SOURCE, sha256=original[_FILE].sha256),
        groups={column: dict(zip(people["user_id"], people[column], strict=True)) for column in GROUPS},
        ties=ties == "keep",
        most=most,
        evaluation_public=True,
        seed=seed,
    )

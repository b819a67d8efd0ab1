"""Lines of Shakespeare's characters: 1.1 million letters, by who speaks them (after LEAF, Caldas and others, 2018)."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.dataset import Examples, Source, Task
from fedsafe.data.inputs import TokenSchema
from fedsafe.data.options import whole
from fedsafe.data.sources import RemoteFile, obtain
from fedsafe.errors import DataError

ORIGINAL: Mapping[str, RemoteFile] = {
    "input.txt": RemoteFile(
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        size=1_115_394,
    )
}
CHARACTERS = (
    "\n !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
)
UNKNOWN = "<unknown>"
TOKENS = (*CHARACTERS, UNKNOWN)
EVALUATION_FRACTION = 0.2
SOURCE = Source(
    name="Tiny Shakespeare (William Shakespeare; collected by Andrej Karpathy, 2015)",
    licence="public domain",
    url="https://github.com/karpathy/char-rnn",
)


def load_shakespeare(
    *,
    length: int = 80,
    least: int = 1000,
    environment: Mapping[str, str] = os.environ,
    original: Mapping[str, RemoteFile] = ORIGINAL,
) -> Task:
    """The task ``"shakespeare"``: the next character, at every position of a window of one speaker's text.

    All that a speaker says is joined and cut into windows, which do not overlap; the targets are the window one
    character on. The tokens are the printable characters of ASCII, the line end, and one for all others. The holders,
    ``"speaker"``, are the characters of the plays; one who appears in two plays is one. The last fifth of each
    speaker's windows is for evaluation, at least one.

    Args:
        length: Characters in a window.
        least: Speakers with fewer characters are left out. That selects by the data: how much each speaker says counts
            as public here, as the number of records of every client does.
        environment: Variables that name folders.
        original: The text.

    Raises:
        ConfigError: If an option is no such number.
        DataError: If the text is not what it should be, cannot be had, or leaves no speaker with two windows.
    """
    length, least = whole(length, "task.length"), whole(least, "task.least")
    (content,) = obtain(environment, "tinyshakespeare", original, "Tiny Shakespeare").values()
    spoken = {
        speaker: text for speaker, text in speeches(content.decode("utf-8")).items() if len(text) >= least
    }
    windows = {speaker: _windows(text, length) for speaker, text in spoken.items()}
    windows = {speaker: cut for speaker, cut in windows.items() if len(cut) >= 2}
    if not windows:
        raise DataError(
            f"No speaker says {max(least, 2 * length + 1)} characters: use a smaller length or least."
        )
    split = {
        speaker: len(cut) - max(1, round(EVALUATION_FRACTION * len(cut))) for speaker, cut in windows.items()
    }
    left_out = f"Speakers with fewer than {least:,} characters are left out; what they count is public."
    return Task(
        name="shakespeare",
        kind="next_token",
        classes=TOKENS,
        schema=TokenSchema(tokens=TOKENS, length=length),
        train=_examples({speaker: cut[: split[speaker]] for speaker, cut in windows.items()}),
        evaluation=_examples({speaker: cut[split[speaker] :] for speaker, cut in windows.items()}),
        evaluation_name="the last fifth of what each speaker says (public)",
        source=replace(SOURCE, sha256=original["input.txt"].sha256, note=left_out),
        evaluation_public=True,
    )


def speeches(text: str) -> dict[str, str]:
    """What each speaker says, in the order of the text; a speech starts with a line ``Name:`` after an empty line.

    Names that differ in capitals only are one speaker.
    """
    said: dict[str, list[str]] = {}
    for block in re.split(r"\n{2,}", text.strip("\n")):
        name, _, speech = block.partition("\n")
        if name.endswith(":"):
            said.setdefault(name[:-1].strip().upper(), []).append(speech)
    return {speaker: "\n".join(parts) for speaker, parts in said.items()}


def _windows(text: str, length: int) -> NDArray[np.int64]:
    """``(windows, length + 1)`` token numbers; the last of a window is the first of the next."""
    code = {character: number for number, character in enumerate(TOKENS)}
    numbers = np.array([code.get(character, len(CHARACTERS)) for character in text], np.int64)
    count = (len(numbers) - 1) // length
    at = np.arange(max(count, 0))[:, None] * length + np.arange(length + 1)
    found: NDArray[np.int64] = numbers[at]
    return found


def _examples(windows: Mapping[str, NDArray[np.int64]]) -> Examples:
    joined = np.concatenate([*windows.values()])
    speakers = np.repeat([*windows], [len(cut) for cut in windows.values()])
    return Examples(x=joined[:, :-1], y=joined[:, 1:], holders={"speaker": speakers})

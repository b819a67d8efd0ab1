"""The story model: what is kept between tokens changes nothing, texts do not see each other, a cut file is refused."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from fedsafe.alignment.stories import Kept, StoryModel, StoryWriter, count_sentences
from fedsafe.alignment.story_tokens import BEGIN, StoryTokens
from fedsafe.errors import ConfigError, DataError

DATA = Path(os.environ.get("FEDSAFE_DATA_DIR", "/nonexistent")) / "stories260k"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="FEDSAFE_DATA_DIR does not name a folder with stories260k"
)
PIECES = [
    "<unk>",
    "\n<s>\n",
    "\n</s>\n",
    *(f"<0x{byte:02X}>" for byte in range(256)),
    " ",
    "a",
    "b",
    ".",
    " a",
    "ab",
]


def model_file(heads=4, key_heads=2, width=16, hidden=12, layers=2, positions=24, own=False):
    rng, vocabulary = np.random.default_rng(3), len(PIECES)
    keys = key_heads * width // heads
    shapes = [
        (vocabulary, width),
        (layers, width),
        (layers, width, width),
        (layers, keys, width),
        (layers, keys, width),
        (layers, width, width),
        (layers, width),
        (layers, hidden, width),
        (layers, width, hidden),
        (layers, hidden, width),
        (width,),
    ]
    angles = np.arange(positions)[:, None] * np.array([1.0, 0.1])[: width // heads // 2]
    parts = [rng.normal(0, 0.5, shape) for shape in shapes] + [np.cos(angles), np.sin(angles)]
    parts += [rng.normal(0, 0.5, (vocabulary, width))] if own else []
    signed = -vocabulary if own else vocabulary
    head = struct.pack("<7i", width, hidden, layers, heads, key_heads, signed, positions)
    return head + b"".join(part.astype("<f4").tobytes() for part in parts)


def token_file(pieces=PIECES):
    body = b""
    for place, piece in enumerate(pieces):
        score = float(-place) if len(piece) > 1 else -1e6
        body += struct.pack("<fi", score, len(piece.encode())) + piece.encode()
    return struct.pack("<i", max(map(len, pieces))) + body


@pytest.mark.parametrize("own", [False, True])
def test_the_kept_keys_and_values_give_what_the_whole_text_gives(own):
    model = StoryModel(model_file(own=own))
    tokens = np.random.default_rng(0).integers(0, len(PIECES), 20)
    kept = model.start(1)
    stepped = np.concatenate([model.step(tokens[i : i + 1], kept) for i in range(20)])
    whole = model.logits(tokens.tolist())
    np.testing.assert_allclose(stepped, whole, rtol=1e-4, atol=1e-4)
    # The comparison can fail: another token before changes what comes after.
    changed = tokens.copy()
    changed[0] = (changed[0] + 1) % len(PIECES)
    assert np.abs(model.logits(changed.tolist())[-1] - whole[-1]).max() > 1e-3


def test_a_text_is_the_same_to_the_last_bit_whatever_is_written_beside_it():
    writer = StoryWriter(StoryModel(model_file()), StoryTokens(token_file(), len(PIECES)), most_tokens=20)
    together = writer.many("a ab", [1, 2, 3, 4])
    assert together == [writer("a ab", seed=seed) for seed in (1, 2, 3, 4)]
    assert len(set(together)) > 1
    assert writer("a ab", seed=1) == together[0]


def test_the_temperature_zero_takes_the_likeliest_token():
    model, tokens = StoryModel(model_file()), StoryTokens(token_file(), len(PIECES))
    writer = StoryWriter(model, tokens, temperature=0, most_tokens=1)
    likeliest = int(model.logits([BEGIN, *tokens.encode("ab")])[-1].argmax())
    assert writer("ab") == tokens.decode(0, [likeliest] if likeliest != BEGIN else [])


def test_top_p_leaves_unlikely_tokens_out():
    model, tokens = StoryModel(model_file()), StoryTokens(token_file(), len(PIECES))
    chances = np.exp(model.logits([BEGIN, *tokens.encode("a")])[-1].astype(float))
    order = np.argsort(-chances)
    cut = int(np.searchsorted(np.cumsum(chances[order]) / chances.sum(), 0.3)) + 1
    few = StoryWriter(model, tokens, top_p=0.3, most_tokens=1).many("a", range(300))
    allowed = {tokens.decode(0, [int(token)]) for token in order[:cut]} | {""}
    assert set(few) <= allowed
    all_of_them = StoryWriter(model, tokens, top_p=1.0, most_tokens=1).many("a", range(300))
    assert not set(all_of_them) <= allowed


def test_tokens_are_merged_by_their_scores_and_read_back():
    tokens = StoryTokens(token_file(), len(PIECES))
    assert [tokens.piece(token) for token in tokens.encode("ab")] == [" a", "b"]
    assert [tokens.piece(token) for token in tokens.encode("bab")] == [" ", "b", "ab"]
    for text in ("ab a.b", "caf\u00e9", "a  b", ""):
        assert tokens.decode(BEGIN, tokens.encode(text)) == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cut off"),
        (model_file()[:-40], "cut off"),
        (model_file()[:2000], "cut off"),
        (struct.pack("<7i", 64, 172, -5, 8, 4, 512, 512), "llama2.c's format"),
        (struct.pack("<7i", 63, 172, 5, 8, 4, 512, 512), "llama2.c's format"),
    ],
)
def test_another_file_is_one_clear_line(content, words):
    with pytest.raises(DataError, match=words):
        StoryModel(content)


def test_cut_tokens_a_long_prompt_and_a_wrong_option_are_one_clear_line(tmp_path):
    with pytest.raises(DataError, match="of 268"):
        StoryTokens(token_file()[:-3], len(PIECES) + 3)
    model, tokens = StoryModel(model_file()), StoryTokens(token_file(), len(PIECES))
    with pytest.raises(ConfigError, match="shorten it"):
        StoryWriter(model, tokens, most_tokens=10)("a" * 40)
    with pytest.raises(ConfigError, match="temperature is -1"):
        StoryWriter(model, tokens, temperature=-1, most_tokens=10)
    with pytest.raises(ConfigError, match="all are used"):
        model.step(np.array([1]), Kept(keys=np.zeros(0, "f"), values=np.zeros(0, "f"), length=24))
    with pytest.raises(DataError, match="cannot be read"):
        StoryWriter.load(tmp_path)


def test_sentences_are_counted_at_their_ends():
    assert count_sentences('He ran. "Why?!" she said... no') == 3


@needs_data
def test_the_published_weights_write_readable_english_and_agree_with_the_slow_way():
    writer = StoryWriter.load(temperature=0, sentences=2)
    assert writer("Lily went to").startswith(" the park")
    story = writer("Once upon a time")
    assert "little girl named Lily" in story
    model, tokens = writer._model, writer._tokens
    text = [BEGIN, *tokens.encode("Once upon a time" + story)]
    kept = model.start(1)
    stepped = np.concatenate([model.step(np.array([token]), kept) for token in text])
    np.testing.assert_allclose(stepped, model.logits(text), atol=1e-3)

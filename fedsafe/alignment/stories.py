"""A story writer of 260,000 parameters, small enough to stand in for a language model wherever one is guarded.

The model is Karpathy's ``stories260K`` (tinyllamas, 2023; MIT), a Llama (Touvron and others, 2023) trained on
TinyStories (Eldan and Li, 2023). The file is of the format "v0" of llama2.c: seven little-endian integers and float32
weights.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.alignment.story_tokens import BEGIN, StoryTokens
from fedsafe.data.sources import RemoteFile, obtain
from fedsafe.errors import ConfigError, DataError

ORIGINAL: Mapping[str, RemoteFile] = {
    "stories260K.bin": RemoteFile(
        url="https://huggingface.co/karpathy/tinyllamas/resolve/main/stories260K/stories260K.bin",
        sha256="b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
        size=1_056_540,
    ),
    "tok512.bin": RemoteFile(
        url="https://huggingface.co/karpathy/tinyllamas/resolve/main/stories260K/tok512.bin",
        sha256="037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
        size=6_227,
    ),
}
_EPSILON = 1e-5  # of the root mean square, as the weights were trained with
_SENTENCE_ENDS = (".", "!", "?")

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The integers of the header, in their order."""

    width: int
    hidden: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    positions: int


class StoryModel:
    """The network: logits of the next token, with the keys and values of earlier positions kept.

    Args:
        content: The bytes of the weight file.

    Raises:
        DataError: They are not of the format.
    """

    def __init__(self, content: bytes) -> None:
        self.sizes, shared = _header(content)
        sizes, weights = self.sizes, np.frombuffer(content, dtype="<f4", offset=28).astype(np.float32)
        self.head_width = sizes.width // sizes.heads
        keys, layers, half = sizes.key_heads * self.head_width, sizes.layers, self.head_width // 2
        taken = 0

        def take(*shape: int) -> Floats:
            nonlocal taken
            count = int(np.prod(shape))
            if taken + count > len(weights):
                raise DataError(
                    f"the story model's file ends after {len(weights):,} weights, and its header asks for more: "
                    "it was cut off"
                )
            taken += count
            return weights[taken - count : taken].reshape(shape)

        self._embedding = take(sizes.vocabulary, sizes.width)
        self._norm_attention = take(layers, sizes.width)
        self._query = take(layers, sizes.width, sizes.width)
        self._key = take(layers, keys, sizes.width)
        self._value = take(layers, keys, sizes.width)
        self._out = take(layers, sizes.width, sizes.width)
        self._norm_feed = take(layers, sizes.width)
        self._gate = take(layers, sizes.hidden, sizes.width)
        self._down = take(layers, sizes.width, sizes.hidden)
        self._up = take(layers, sizes.hidden, sizes.width)
        self._norm_last = take(sizes.width)
        self._cosine = take(sizes.positions, half)
        self._sine = take(sizes.positions, half)
        self._classify = self._embedding if shared else take(sizes.vocabulary, sizes.width)
        # Products of one row are small: what they share an input with is taken at once.
        self._projection = _beside(self._query, self._key, self._value)
        self._feed = _beside(self._gate, self._up)

    def start(self, rows: int) -> "Kept":
        """Nothing is kept yet, for so many texts side by side."""
        sizes = self.sizes
        shape = (sizes.layers, rows, sizes.key_heads, sizes.positions, self.head_width)
        return Kept(keys=np.zeros(shape, np.float32), values=np.zeros(shape, np.float32))

    def step(self, tokens: NDArray[np.int64], kept: "Kept") -> Floats:
        """``(rows, vocabulary)`` logits after one more token of each text; ``kept`` grows by a position.

        Every product is taken row by row, so that a text does not depend on what is written beside it.

        Args:
            tokens: ``(rows,)``.
            kept: What was seen before, changed in place.

        Raises:
            ConfigError: There is no position left.
        """
        sizes, rows, at = self.sizes, len(tokens), kept.length
        if at >= sizes.positions:
            raise ConfigError(
                f"the story model has {sizes.positions} positions, and all are used: ask for less"
            )
        cosine, sine = self._cosine[at], self._sine[at]
        group = sizes.heads // sizes.key_heads
        state = self._embedding[tokens][:, None, :]
        for layer in range(sizes.layers):
            normed = _normalised(state, self._norm_attention[layer])
            projected = (normed @ self._projection[layer]).reshape(rows, -1, self.head_width)
            turned = _turned(projected[:, : sizes.heads + sizes.key_heads], cosine, sine)
            kept.keys[layer, :, :, at] = turned[:, sizes.heads :]
            kept.values[layer, :, :, at] = projected[:, sizes.heads + sizes.key_heads :]
            query = turned[:, : sizes.heads].reshape(rows, sizes.key_heads, group, self.head_width)
            scores = query @ kept.keys[layer, :, :, : at + 1].swapaxes(-1, -2)
            weights = _softmax(scores / np.float32(np.sqrt(self.head_width)))
            mixed = (weights @ kept.values[layer, :, :, : at + 1]).reshape(rows, 1, sizes.width)
            state = state + mixed @ self._out[layer].T
            normed = _normalised(state, self._norm_feed[layer])
            gate, up = np.split(normed @ self._feed[layer], 2, axis=-1)
            state = state + gate / (1 + np.exp(-gate)) * up @ self._down[layer].T
        kept.length = at + 1
        logits: Floats = (_normalised(state, self._norm_last) @ self._classify.T)[:, 0]
        return logits

    def logits(self, tokens: Sequence[int]) -> Floats:
        """``(positions, vocabulary)`` logits after every token of a text, all positions at once and nothing kept.

        This is the slow way, written apart from `step`, which it is the check of.
        """
        sizes, count = self.sizes, len(tokens)
        group = sizes.heads // sizes.key_heads
        cosine, sine = self._cosine[:count, None], self._sine[:count, None]
        unseen = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        state = self._embedding[np.asarray(tokens)]
        for layer in range(sizes.layers):
            normed = _normalised(state, self._norm_attention[layer])
            query = _turned((normed @ self._query[layer].T).reshape(count, sizes.heads, -1), cosine, sine)
            key = _turned((normed @ self._key[layer].T).reshape(count, sizes.key_heads, -1), cosine, sine)
            value = (normed @ self._value[layer].T).reshape(count, sizes.key_heads, -1)
            key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
            scores = np.einsum("qhd,khd->hqk", query, key) / np.float32(np.sqrt(self.head_width))
            mixed = np.einsum("hqk,khd->qhd", _softmax(scores + unseen), value).reshape(count, -1)
            state = state + mixed @ self._out[layer].T
            normed = _normalised(state, self._norm_feed[layer])
            gate = normed @ self._gate[layer].T
            state = state + (gate / (1 + np.exp(-gate)) * (normed @ self._up[layer].T)) @ self._down[layer].T
        found: Floats = _normalised(state, self._norm_last) @ self._classify.T
        return found


@dataclass(kw_only=True)
class Kept:
    """Keys and values of earlier positions.

    Attributes:
        keys: ``(layers, rows, key heads, positions, head width)``.
        values: As the keys.
        length: Positions that are filled.
    """

    keys: Floats
    values: Floats
    length: int = 0


class StoryWriter:
    """Continues a story: ``writer(prompt, seed=7)`` is a `generate` for a guard.

    Args:
        model: The network.
        tokens: Its tokens.
        temperature: Of the sampling; 0 always takes the likeliest token.
        top_p: The likeliest tokens that together have this probability are sampled from (Holtzman and others, 2020).
        sentences: A story ends after so many sentences.
        most_tokens: And after so many tokens, wherever it is.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        model: StoryModel,
        tokens: StoryTokens,
        *,
        temperature: float = 1.0,
        top_p: float = 0.9,
        sentences: int = 5,
        most_tokens: int = 200,
    ) -> None:
        for name, value, low, high in (
            ("temperature", temperature, 0.0, 10.0),
            ("top_p", top_p, 1e-6, 1.0),
            ("sentences", sentences, 1, 1000),
            ("most_tokens", most_tokens, 1, model.sizes.positions),
        ):
            if not low <= value <= high:
                raise ConfigError(
                    f"the story writer's {name} is {value!r}; it lies between {low:g} and {high:g}"
                )
        self._model, self._tokens = model, tokens
        self._temperature, self._top_p = temperature, top_p
        self._sentences, self._most = sentences, most_tokens

    @classmethod
    def load(
        cls,
        folder: Path | str | None = None,
        *,
        environment: Mapping[str, str] = os.environ,
        **options: float,
    ) -> "StoryWriter":
        """The writer with the weights of a folder, of ``FEDSAFE_DATA_DIR/stories260k``, or downloaded and checked.

        Args:
            folder: Holds ``stories260K.bin`` and ``tok512.bin``, of which only the format is checked.
            environment: Variables that name folders.
            options: See the class.

        Raises:
            DataError: They cannot be had or are not of the format.
            ConfigError: An option is out of range.
        """
        if folder is None:
            weights, tokens = obtain(environment, "stories260k", ORIGINAL, "The story model").values()
        else:
            try:
                weights, tokens = ((Path(folder) / name).read_bytes() for name in ORIGINAL)
            except OSError as error:
                raise DataError(
                    f"{error.filename} cannot be read: {error.strerror}; name a folder that has it"
                ) from error
        model = StoryModel(weights)
        return cls(model, StoryTokens(tokens, model.sizes.vocabulary), **options)  # type: ignore[arg-type]

    def __call__(self, prompt: str, *, seed: int = 0) -> str:
        """What follows the prompt; the same prompt and seed always give the same text."""
        return self.many(prompt, [seed])[0]

    def many(self, prompt: str, seeds: Sequence[int]) -> list[str]:
        """One continuation for each seed, each what it would be alone.

        Raises:
            ConfigError: The prompt leaves no room for a story.
        """
        begin = [BEGIN, *self._tokens.encode(prompt)]
        room = self._model.sizes.positions - len(begin)
        if room < 1:
            raise ConfigError(
                f"the prompt has {len(begin)} tokens, and the story model's {self._model.sizes.positions} positions "
                "leave no room for a story: shorten it"
            )
        generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        kept = self._model.start(1)
        for token in begin:
            first = self._model.step(np.array([token]), kept)
        kept = Kept(
            keys=np.repeat(kept.keys, len(seeds), axis=1),
            values=np.repeat(kept.values, len(seeds), axis=1),
            length=kept.length,
        )
        logits = np.repeat(first, len(seeds), axis=0)
        texts: list[list[int]] = [[] for _ in seeds]
        going = list(range(len(seeds)))
        for _ in range(min(self._most, room)):
            chosen = np.full(len(seeds), BEGIN)
            for row in going:
                chosen[row] = self._choose(logits[row], generators[row])
            for row in list(going):
                if chosen[row] == BEGIN:  # another story would begin
                    going.remove(row)
                    continue
                texts[row].append(int(chosen[row]))
                if self._finished(begin[-1], texts[row]):
                    going.remove(row)
            if not going or kept.length >= self._model.sizes.positions:
                break
            logits = self._model.step(chosen, kept)
        return [self._tokens.decode(begin[-1], text) for text in texts]

    def _finished(self, before: int, text: list[int]) -> bool:
        if not self._tokens.piece(text[-1]).endswith((*_SENTENCE_ENDS, '"')):
            return False
        return count_sentences(self._tokens.decode(before, text)) >= self._sentences

    def _choose(self, logits: Floats, generator: np.random.Generator) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        chances = _softmax(logits.astype(np.float64) / self._temperature)
        order = np.argsort(-chances, kind="stable")
        summed = np.cumsum(chances[order])
        count = int(np.searchsorted(summed, self._top_p)) + 1
        draw = generator.random() * summed[min(count, len(order)) - 1]
        return int(order[min(int(np.searchsorted(summed, draw, side="right")), len(order) - 1)])


def count_sentences(text: str) -> int:
    """Sentences that end: full stops, exclamation and question marks, several in a row as one."""
    ends = [character in _SENTENCE_ENDS for character in text]
    return sum(end and not after for end, after in zip(ends, [*ends[1:], False], strict=True))


def _header(content: bytes) -> tuple[Sizes, bool]:
    if len(content) < 28:
        raise DataError(f"the story model's file has {len(content)} bytes: it was cut off")
    width, hidden, layers, heads, key_heads, vocabulary, positions = struct.unpack("<7i", content[:28])
    found = (width, hidden, layers, heads, key_heads, abs(vocabulary), positions)
    whole = all(0 < number <= 1 << 20 for number in found)
    if not whole or width % heads or heads % key_heads or (len(content) - 28) % 4:
        raise DataError(f"the story model's header says {found}: it is no file of llama2.c's format v0")
    sizes = Sizes(
        width=width,
        hidden=hidden,
        layers=layers,
        heads=heads,
        key_heads=key_heads,
        vocabulary=abs(vocabulary),
        positions=positions,
    )
    return sizes, vocabulary > 0


def _beside(*weights: Floats) -> Floats:
    return np.ascontiguousarray(np.concatenate(weights, axis=1).swapaxes(1, 2))


def _normalised(state: Floats, weight: Floats) -> Floats:
    width = np.float32(state.shape[-1])
    scale = np.sqrt((state * state).sum(axis=-1, keepdims=True) / width + np.float32(_EPSILON))
    normed: Floats = state / scale * weight
    return normed


def _turned(heads: Floats, cosine: Floats, sine: Floats) -> Floats:
    """Rotary positions (Su and others, 2021), on neighbouring pairs."""
    even, odd = heads[..., 0::2], heads[..., 1::2]
    turned = np.empty_like(heads)
    turned[..., 0::2] = even * cosine - odd * sine
    turned[..., 1::2] = even * sine + odd * cosine
    return turned


def _softmax(scores: NDArray[Any]) -> NDArray[Any]:
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: NDArray[Any] = raised / raised.sum(axis=-1, keepdims=True)
    return shares

"""all-MiniLM-L6-v2, run here: a small BERT (Devlin and others, 2019) that gives texts vectors.

Word, position and type embeddings, then layers of self-attention and of a wide hidden layer with the exact GELU, each
added to its input and normalised; the mean over a text's tokens, at unit length (Wang and others, 2020, MiniLM; Reimers
and Gurevych, 2019, Sentence-BERT). The weights are frozen: nothing is trained on a text.

Two vectors of a text: that of the **last** layer, which is the one that sentences are compared by, and the mean of the
unit vectors of **all** layers, the embeddings included, again at unit length. The last layer was trained to tell what a
text is about; how it is put (an insult, a curse) shows more in the layers before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import DataError

if TYPE_CHECKING:
    import torch

LONGEST = 256  # tokens; the rest of a text is cut off
HEADS = 12
_EPSILON = 1e-12  # of the layer normalisation
_BATCH = 2048  # tokens in one batch, padding included
_MODEL, _TOKENS = "model.safetensors", "tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A tokenizer and the weights of a BERT.

    Args:
        tokenizer: A ``tokenizers.Tokenizer`` that neither pads nor cuts at more than ``LONGEST`` tokens.
        weights: Tensors by the names that BERT's own files give them.
        heads: Attention heads; a layer's width is a multiple of it.
    """

    tokenizer: Any
    weights: "dict[str, torch.Tensor]"
    heads: int = HEADS

    @property
    def width(self) -> int:
        """Values of a text's vector."""
        return int(self.weights["embeddings.LayerNorm.weight"].shape[0])

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(n, 2, width)`` vectors of unit length: of the last layer, and of all layers.

        Texts are taken in the order of their lengths, so that a batch pads little; a text's vector does not depend on
        its batch but for rounding (below 1e-6).
        """
        import torch

        found = np.empty((len(texts), 2, self.width), np.float32)
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        with torch.inference_mode():
            for rows in _batches([len(ids) for ids in tokens]):
                longest = max(len(tokens[row]) for row in rows)
                padded = torch.zeros((len(rows), longest), dtype=torch.int64)
                mask = torch.zeros((len(rows), longest), dtype=torch.bool)
                for at, row in enumerate(rows):
                    padded[at, : len(tokens[row])] = torch.tensor(tokens[row])
                    mask[at, : len(tokens[row])] = True
                found[rows] = self._pooled(padded, mask).numpy()
        return found

    def _pooled(self, tokens: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """``(n, 2, width)`` of ``(n, longest)`` token numbers, and which of them are no padding."""
        import torch

        def mean(hidden: "torch.Tensor") -> "torch.Tensor":
            summed = (hidden * mask[..., None]).sum(1)
            return torch.nn.functional.normalize(summed / mask.sum(1, keepdim=True), dim=1)

        weights, positions = self.weights, tokens.shape[1]
        hidden = weights["embeddings.word_embeddings.weight"][tokens]
        hidden = hidden + weights["embeddings.position_embeddings.weight"][:positions]
        hidden = self._normal(
            hidden + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"
        )
        means = [mean(hidden)]
        while f"encoder.layer.{len(means) - 1}.output.dense.weight" in weights:
            hidden = self._layer(hidden, mask, f"encoder.layer.{len(means) - 1}.")
            means.append(mean(hidden))
        every = torch.nn.functional.normalize(torch.stack(means).mean(0), dim=1)
        return torch.stack([means[-1], every], dim=1)

    def _layer(self, hidden: "torch.Tensor", mask: "torch.Tensor", name: str) -> "torch.Tensor":
        import torch

        n, positions, width = hidden.shape
        query, key, value = (
            self._linear(hidden, f"{name}attention.self.{part}")
            .view(n, positions, self.heads, width // self.heads)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        attended = attended.transpose(1, 2).reshape(n, positions, width)
        hidden = self._normal(
            self._linear(attended, f"{name}attention.output.dense") + hidden,
            f"{name}attention.output.LayerNorm",
        )
        wide = torch.nn.functional.gelu(self._linear(hidden, f"{name}intermediate.dense"))
        return self._normal(self._linear(wide, f"{name}output.dense") + hidden, f"{name}output.LayerNorm")

    def _linear(self, x: "torch.Tensor", name: str) -> "torch.Tensor":
        import torch

        return torch.nn.functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _normal(self, x: "torch.Tensor", name: str) -> "torch.Tensor":
        import torch

        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, (self.width,), scale, shift, _EPSILON)


def read_encoder(folder: Path, content: bytes) -> Encoder:
    """The encoder of a folder that has a tokenizer, and of weights that were read and checked.

    Args:
        folder: Has ``tokenizer.json``.
        content: Of ``model.safetensors``.

    Raises:
        DataError: If ``tokenizers`` is not installed, or a file is none of its kind.
    """
    from safetensors.torch import load

    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError("Texts need the package tokenizers: pip install 'fedsafe[text]'.") from error
    try:
        tokenizer = Tokenizer.from_file(str(folder / _TOKENS))
        weights = load(content)
    except Exception as error:  # tokenizers raises Exception itself
        raise DataError(f"{folder} has no tokenizer and weights that can be read: {error}.") from error
    words = weights.get("embeddings.word_embeddings.weight", ())
    if tokenizer.get_vocab_size() != len(words):
        raise DataError(
            f"The tokenizer of {folder} knows {tokenizer.get_vocab_size()} tokens, its weights {len(words)}: put the "
            f"tokenizer of these weights there."
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return Encoder(tokenizer=tokenizer, weights=weights)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in the order of their lengths, cut so that a padded batch has at most about ``_BATCH`` tokens."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    cuts, start = [0], 0
    for at, row in enumerate(order):
        if at > start and (at - start + 1) * lengths[row] > _BATCH:
            cuts.append(at)
            start = at
    cuts.append(len(order))
    return [order[start:end] for start, end in pairwise(cuts) if end > start]

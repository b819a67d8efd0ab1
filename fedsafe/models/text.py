"""Recurrent networks over tokens."""

from torch import Tensor, nn

from fedsafe.errors import ConfigError
from fedsafe.models.options import whole


def lstm(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    vocabulary: int | None,
    positions: int | None = None,
    embedding: int = 8,
    hidden: int = 64,
    layers: int = 1,
) -> nn.Module:
    """An embedding, an LSTM (Hochreiter and Schmidhuber 1997) and a linear layer, as in LEAF (Caldas et al. 2018).

    Args:
        inputs: ``(positions,)``.
        outputs: Logits of a position, or of the sequence.
        vocabulary: Number of tokens.
        positions: Positions that have outputs, all of the input's; None for one output after the last.
        embedding: Width of a token's vector.
        hidden: Width of the recurrent state.
        layers: Recurrent layers.

    Raises:
        ConfigError: If the inputs are no sequences of tokens, or an option is no positive whole number.
    """
    if vocabulary is None or len(inputs) != 1:
        found = f"numbers of shape {tuple(inputs)}" if vocabulary is None else f"of shape {tuple(inputs)}"
        raise ConfigError(
            f"The model 'lstm' needs sequences of tokens, with a vocabulary, and this task's inputs are {found}: use "
            "the model 'mlp'."
        )
    if positions is not None and positions != inputs[0]:
        raise ConfigError(
            f"The model 'lstm' gives one output for each of {inputs[0]} positions, or one for all; this task has "
            f"{positions}."
        )
    return TokenLSTM(
        vocabulary,
        outputs,
        embedding=whole("embedding", embedding),
        hidden=whole("hidden", hidden),
        layers=whole("layers", layers),
        every=positions is not None,
    )


class TokenLSTM(nn.Module):
    """Embedding, LSTM and linear layer.

    Args:
        vocabulary: Number of tokens.
        outputs: Logits.
        embedding: Width of a token's vector.
        hidden: Width of the recurrent state.
        layers: Recurrent layers.
        every: Whether each position has an output, or the last alone.
    """

    def __init__(
        self, vocabulary: int, outputs: int, *, embedding: int, hidden: int, layers: int, every: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, outputs)
        self._every = every

    def forward(self, x: Tensor) -> Tensor:
        """``(n, positions)`` tokens to logits ``(n, positions, outputs)``, or ``(n, outputs)``."""
        states, _ = self.lstm(self.embedding(x))
        logits: Tensor = self.head(states if self._every else states[:, -1])
        return logits

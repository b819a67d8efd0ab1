"""The tokens of the story model: pieces of text with scores, merged greedily (Sennrich and others, 2016)."""

import re
import struct

from fedsafe.errors import DataError

BEGIN = 1
"""Begins a story; where it is written, the story has ended."""

_WORD = re.compile(r" [^ ]*")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_FIRST_BYTE = 3  # after the unknown token and the two ends


class StoryTokens:
    """A vocabulary in the format of llama2.c: the longest length, then score, length and bytes of each piece.

    Args:
        content: The bytes of the file.
        size: Pieces in the vocabulary.

    Raises:
        DataError: They are not of the format.
    """

    def __init__(self, content: bytes, size: int) -> None:
        self._pieces: list[bytes] = []
        self._scores: list[float] = []
        at = 4
        try:
            for _ in range(size):
                score, length = struct.unpack_from("<fi", content, at)
                if not 0 <= length <= len(content) - at - 8:
                    raise struct.error(f"a piece of {length} bytes")
                self._pieces.append(content[at + 8 : at + 8 + length])
                self._scores.append(score)
                at += 8 + length
        except struct.error as error:
            raise DataError(
                f"the story model's tokens end after {len(self._pieces)} of {size}: {error}"
            ) from error
        self._spaced = any(b" " in piece[1:] for piece in self._pieces)
        self._of = {piece: token for token, piece in reversed(list(enumerate(self._pieces)))}

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; a character that has none is written in bytes."""
        if self._spaced:
            return self._merged(" " + text if text else "")
        # No piece reaches over a space: words are merged one by one, which takes no longer for a long text.
        return [token for word in _WORD.findall(" " + text if text else "") for token in self._merged(word)]

    def _merged(self, text: str) -> list[int]:
        tokens: list[int] = []
        for character in text:
            piece = character.encode()
            known = self._of.get(piece)
            tokens += [known] if known is not None else [byte + _FIRST_BYTE for byte in piece]
        while True:
            best, place, merged = -1e10, -1, -1
            for i in range(len(tokens) - 1):
                token = self._of.get(self._pieces[tokens[i]] + self._pieces[tokens[i + 1]])
                if token is not None and self._scores[token] > best:
                    best, place, merged = self._scores[token], i, token
            if place < 0:
                return tokens
            tokens[place : place + 2] = [merged]

    def piece(self, token: int) -> str:
        """A token's text; a byte that is no text alone becomes a replacement character."""
        return self._bytes(token).decode(errors="replace")

    def decode(self, before: int, tokens: list[int]) -> str:
        """The text of tokens.

        Args:
            before: The token before them: a story's first piece loses its space.
            tokens: What to write.
        """
        written = b"".join(self._bytes(token) for token in tokens)
        return (written[1:] if before == BEGIN and written.startswith(b" ") else written).decode(
            errors="replace"
        )

    def _bytes(self, token: int) -> bytes:
        piece = self._pieces[token]
        found = _BYTE.fullmatch(piece.decode(errors="replace"))
        return bytes([int(found.group(1), 16)]) if found else piece

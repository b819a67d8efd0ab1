"""What is sent in a round of secure aggregation, and in which bytes.

=====  =====================  ====================  ==========================================================
stage  from the server        from a client         says
=====  =====================  ====================  ==========================================================
0                             ``Advertisement``     two public keys, and what binds the client to its own mask
1      ``Roster``             ``Shares``            what each chosen neighbour holds, for its eyes alone
2      ``Deliveries``         ``Masked``            the masked values, and under which lists they were masked
3      ``Survivors``          ``Confirmation``      that this list of survivors is the only one it helps with
4      ``Confirmations``      ``Revealed``          one share of each neighbour: of its own mask if it survived,
                                                    of its masks with others if it did not
any    ``Abort``                                    why the round has ended
=====  =====================  ====================  ==========================================================
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from fedsafe.aggregation.secure.keys import KEY_BYTES
from fedsafe.aggregation.secure.wire import Reader, Writer, require_ascending

_DIGEST = 32


class Message(Protocol):
    """What every kind of message can do."""

    kind: ClassVar[int]
    signed: ClassVar[bool]

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        ...

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        ...


@dataclass(frozen=True, kw_only=True)
class Advertisement:
    """The keys of one client.

    Args:
        exchange: Public key that shares are encrypted with.
        mask: Public key that masks come from.
        commitment: To the key of its own mask.
    """

    exchange: bytes
    mask: bytes
    commitment: bytes
    kind: ClassVar[int] = 1
    signed: ClassVar[bool] = True

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        to.fixed(self.exchange + self.mask + self.commitment)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(
            exchange=source.fixed(KEY_BYTES),
            mask=source.fixed(KEY_BYTES),
            commitment=source.fixed(_DIGEST),
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A client of the roster: its number, its keys, and its signature."""

    client: int
    keys: Advertisement
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class Roster:
    """All clients that advertised keys, in ascending order."""

    entries: tuple[Entry, ...]
    kind: ClassVar[int] = 2
    signed: ClassVar[bool] = False

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""

        def write(entry: Entry) -> None:
            to.number(entry.client)
            entry.keys.write(to)
            to.piece(entry.signature)

        to.listed(self.entries, write)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""

        def read() -> Entry:
            return Entry(client=source.number(), keys=Advertisement.read(source), signature=source.piece())

        entries = source.listed(read, 104)
        require_ascending([entry.client for entry in entries])
        return cls(entries=entries)


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """What one client deals to another.

    Args:
        holder: Who can read it.
        hidden: Encrypted: the neighbours of its owner, and a share of each of its secrets.
        of_own: Digest of the share of its own mask's key.
        of_masks: Digest of the share of its masks' private key.
    """

    holder: int
    hidden: bytes
    of_own: bytes
    of_masks: bytes

    def delivered(self, owner: int) -> "Delivered":
        """The same, as its holder gets it."""
        return Delivered(owner=owner, hidden=self.hidden, of_own=self.of_own, of_masks=self.of_masks)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What one client deals to the neighbours that it chose, in ascending order."""

    dealt: tuple[Sealed, ...]
    kind: ClassVar[int] = 3
    signed: ClassVar[bool] = True

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""

        def write(sealed: Sealed) -> None:
            to.number(sealed.holder)
            to.piece(sealed.hidden)
            to.fixed(sealed.of_own + sealed.of_masks)

        to.listed(self.dealt, write)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""

        def read() -> Sealed:
            return Sealed(
                holder=source.number(),
                hidden=source.piece(),
                of_own=source.fixed(_DIGEST),
                of_masks=source.fixed(_DIGEST),
            )

        dealt = source.listed(read, 72)
        require_ascending([sealed.holder for sealed in dealt])
        return cls(dealt=dealt)


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What one client was dealt by another, with what its owner bound itself to.

    Args:
        owner: Who dealt it.
        hidden: As in :class:`Sealed`.
        of_own: The same.
        of_masks: The same.
    """

    owner: int
    hidden: bytes
    of_own: bytes
    of_masks: bytes


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """Who dealt shares, and what was dealt to this client.

    Args:
        sharing: All clients that dealt shares.
        sealed: In the order of owners.
    """

    sharing: tuple[int, ...]
    sealed: tuple[Delivered, ...]
    kind: ClassVar[int] = 4
    signed: ClassVar[bool] = False

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""

        def write(delivered: Delivered) -> None:
            to.number(delivered.owner)
            to.piece(delivered.hidden)
            to.fixed(delivered.of_own + delivered.of_masks)

        to.clients(self.sharing)
        to.listed(self.sealed, write)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""

        def read() -> Delivered:
            return Delivered(
                owner=source.number(),
                hidden=source.piece(),
                of_own=source.fixed(_DIGEST),
                of_masks=source.fixed(_DIGEST),
            )

        sharing, sealed = source.clients(), source.listed(read, 72)
        require_ascending([delivered.owner for delivered in sealed])
        return cls(sharing=sharing, sealed=sealed)


@dataclass(frozen=True, kw_only=True)
class Masked:
    """The masked values of one client.

    Args:
        receipt: Signature that says under which roster and list of sharing clients it was masked.
        unreadable: Neighbours whose shares could not be read, or are not those that their owner bound itself to: with
            these this client cannot help.
        values: Little-endian words of the modulus.
    """

    receipt: bytes
    unreadable: tuple[int, ...]
    values: bytes
    kind: ClassVar[int] = 5
    signed: ClassVar[bool] = True

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        to.piece(self.receipt)
        to.clients(self.unreadable)
        to.piece(self.values)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(receipt=source.piece(), unreadable=source.clients(), values=source.piece())


@dataclass(frozen=True, kw_only=True)
class Survivors:
    """Whose masked values are summed.

    Args:
        clients: They.
        receipts: Of those among them that dealt shares to this client.
    """

    clients: tuple[int, ...]
    receipts: tuple[tuple[int, bytes], ...]
    kind: ClassVar[int] = 6
    signed: ClassVar[bool] = False

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        to.clients(self.clients)
        _write_pairs(to, self.receipts)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(clients=source.clients(), receipts=_read_pairs(source))


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """That a client helps with one list of survivors: the digest of all three lists."""

    lists: bytes
    kind: ClassVar[int] = 7
    signed: ClassVar[bool] = True

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        to.fixed(self.lists)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(lists=source.fixed(_DIGEST))


@dataclass(frozen=True, kw_only=True)
class Confirmations:
    """The signatures of all confirmations, ``(client, signature)``."""

    signatures: tuple[tuple[int, bytes], ...]
    kind: ClassVar[int] = 8
    signed: ClassVar[bool] = False

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        _write_pairs(to, self.signatures)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(signatures=_read_pairs(source))


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """One share of each neighbour that dealt some to this client.

    Args:
        own: Of the own masks of survivors, ``(owner, share)``.
        masks: Of the masks' private keys of the others.
    """

    own: tuple[tuple[int, bytes], ...]
    masks: tuple[tuple[int, bytes], ...]
    kind: ClassVar[int] = 9
    signed: ClassVar[bool] = True

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        _write_pairs(to, self.own)
        _write_pairs(to, self.masks)

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(own=_read_pairs(source), masks=_read_pairs(source))


@dataclass(frozen=True, kw_only=True)
class Abort:
    """Why the round has ended without a sum."""

    reason: str
    kind: ClassVar[int] = 10
    signed: ClassVar[bool] = False

    def write(self, to: Writer) -> None:
        """Its own part, after the header."""
        to.piece(self.reason.encode())

    @classmethod
    def read(cls, source: Reader) -> Self:
        """The inverse."""
        return cls(reason=source.piece().decode(errors="replace"))


def _write_pairs(to: Writer, pairs: tuple[tuple[int, bytes], ...]) -> None:
    def write(pair: tuple[int, bytes]) -> None:
        to.number(pair[0])
        to.piece(pair[1])

    to.listed(pairs, write)


def _read_pairs(source: Reader) -> tuple[tuple[int, bytes], ...]:
    pairs = source.listed(lambda: (source.number(), source.piece()), 8)
    require_ascending([client for client, _ in pairs])
    return pairs

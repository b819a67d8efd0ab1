"""Byte strings over a socket between two processes of one machine, each with its length before it."""

import socket

_LENGTH = 8


def send(own: socket.socket, content: bytes) -> None:
    """Write a byte string.

    Raises:
        OSError: The other end is gone, or did not read in time.
    """
    own.sendall(len(content).to_bytes(_LENGTH, "big") + content)


def receive(own: socket.socket, most: int) -> bytes:
    """Read a byte string.

    Args:
        own: The socket.
        most: Bytes that it may have.

    Raises:
        EOFError: The other end is gone.
        OSError: It has more bytes than that, or did not come in time.
    """
    length = int.from_bytes(_exactly(own, _LENGTH), "big")
    if length > most:
        raise OSError(f"{length} bytes are announced, at most {most} are read")
    return _exactly(own, length)


def _exactly(own: socket.socket, count: int) -> bytes:
    read = bytearray()
    while len(read) < count:
        part = own.recv(min(count - len(read), 2**20))
        if not part:
            raise EOFError
        read += part
    return bytes(read)

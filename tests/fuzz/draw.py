"""What a target takes out of arbitrary bytes: choices first, what is left last. Where nothing is left, all choices are 0."""

import itertools


class Draw:
    """Bytes, read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at >= len(self._data)

    def take(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def byte(self) -> int:
        return int.from_bytes(self.take(1), "little")

    def number(self, size: int) -> int:
        """An integer of so many bytes."""
        return int.from_bytes(self.take(size), "little")

    def below(self, bound: int) -> int:
        return self.byte() % bound

    def piece(self) -> bytes:
        """Bytes that say themselves how many they are, up to 255."""
        return self.take(self.byte())

    def text(self) -> str:
        return self.piece().decode("utf-8", "replace")

    def cuts(self) -> list[int]:
        """Places to cut a stream at, up to 7."""
        return [self.number(2) for _ in range(self.below(8))]

    def rest(self) -> bytes:
        return self.take(len(self._data))


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream in pieces."""
    edges = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]

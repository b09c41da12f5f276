"""Randomness from one seed, split per purpose, so that no two consumers ever share a stream.

The purpose is a word ("mask", "partition", "init"), the coordinates are whole numbers (round, node,
image). The same arguments give the same stream in every process and on every machine.
"""

import hashlib

import numpy as np


def seed_sequence(seed: int, purpose: str, *coordinates: int) -> np.random.SeedSequence:
    """The child `SeedSequence` of `seed` for this purpose and these coordinates."""
    # Python's own hash() differs between processes; a digest does not.
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
    return np.random.SeedSequence([seed, word, *coordinates])


def generator(seed: int, purpose: str, *coordinates: int) -> np.random.Generator:
    """A numpy generator, independent of those for other purposes and coordinates."""
    return np.random.default_rng(seed_sequence(seed, purpose, *coordinates))


def torch_seed(seed: int, purpose: str, *coordinates: int) -> int:
    """A 63-bit seed for `torch.Generator.manual_seed`, for this purpose and these coordinates."""
    state = seed_sequence(seed, purpose, *coordinates).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))

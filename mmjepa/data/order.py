"""The order of training samples: a pure function of (seed, step), so that nothing needs to be saved or replayed.

Any step's batch can be looked up without visiting the earlier ones. Hence the order does not depend on the number of
workers, ranks taking rows of one global batch see the same batches at any world size, and resuming is starting at the
saved step.

* Every global batch is of one kind, stills or videos, so that all ranks get tensors of equal shape. A step's kind is
  drawn in proportion to the summed weights of the sources of each kind.
* The rows of a batch are drawn among the sources of its kind in proportion to their weights. Over a run, the share of
  samples from each source is therefore its share of the weights.
* Within a source, samples come without replacement: each pass is a new permutation. Shards are shuffled, and samples
  within groups of consecutive shuffled shards, so that nearby rows touch few shards.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from mmjepa.errors import UserError

BLOCK = 10_000
"""Draws per block. Weights hold exactly in every whole block, to 1 / BLOCK."""

SHARDS_PER_SHUFFLE = 16
"""Samples are shuffled across this many shards; more mixes better, fewer touch fewer files at a time."""


class Purpose(IntEnum):
    """What random numbers are drawn for: keeps the streams of one seed apart."""

    KIND = 1
    SOURCE = 2
    PASS = 3
    REPLACEMENT = 4
    CLIP = 5


def keyed_generator(seed: int, purpose: Purpose, first: int, second: int) -> np.random.Generator:
    """A generator that depends on exactly these four non-negative numbers."""
    # Always four words of key: SeedSequence pads with zeros, so keys of unequal length could coincide.
    return np.random.default_rng([seed, int(purpose), first, second])


class WeightedSequence:
    """An endless random sequence over 0..n-1 with given weights, addressable at any position.

    Each block of BLOCK positions is a random permutation of the same multiset, apportioned to the weights. So the
    frequencies are exact, and the number of earlier occurrences of a choice (its *ordinal*) is known without counting
    through the earlier blocks.
    """

    def __init__(self, weights: Sequence[float], seed: int, purpose: Purpose, salt: int = 0) -> None:
        self._counts = _apportion(weights, BLOCK)
        self._seed, self._purpose, self._salt = seed, purpose, salt
        self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

    def lookup(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(choices, ordinals), both like ``positions`` (P,) int64: what comes there, and how often it came before."""
        blocks, offsets = np.divmod(positions, BLOCK)
        choices, ordinals = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks):
            here = blocks == block
            block_choices, block_ranks = self._block(int(block))
            choices[here] = block_choices[offsets[here]]
            ordinals[here] = block * self._counts[choices[here]] + block_ranks[offsets[here]]
        return choices, ordinals

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Choices of one block, and for each its rank among the equal choices of the block."""
        if self._cached is None or self._cached[0] != block:
            generator = keyed_generator(self._seed, self._purpose, self._salt, block)
            choices = generator.permutation(np.repeat(np.arange(len(self._counts)), self._counts))
            ranks = np.empty_like(choices)
            for choice, count in enumerate(self._counts):
                ranks[choices == choice] = np.arange(count)
            self._cached = (block, choices, ranks)
        return self._cached[1], self._cached[2]


class PassOrder:
    """Endless passes over one source of shards with given sizes; each pass visits every sample once."""

    def __init__(self, shard_sizes: Sequence[int], seed: int, salt: int) -> None:
        self._shard_ends = np.cumsum(shard_sizes)
        self._seed, self._salt = seed, salt
        self._cached: tuple[int, np.ndarray] | None = None

    def lookup(self, ordinals: np.ndarray) -> np.ndarray:
        """Sample indices (P,) for the ``ordinals`` (P,), the running count of draws from this source."""
        passes, offsets = np.divmod(ordinals, int(self._shard_ends[-1]))
        samples = np.empty_like(ordinals)
        for number in np.unique(passes):
            here = passes == number
            samples[here] = self._permutation(int(number))[offsets[here]]
        return samples

    def _permutation(self, number: int) -> np.ndarray:
        """The order of all samples in pass ``number``."""
        if self._cached is None or self._cached[0] != number:
            generator = keyed_generator(self._seed, Purpose.PASS, self._salt, number)
            ends = self._shard_ends
            starts = np.concatenate([[0], ends[:-1]])
            shards = generator.permutation(len(ends))
            groups = [shards[first : first + SHARDS_PER_SHUFFLE] for first in range(0, len(shards), SHARDS_PER_SHUFFLE)]
            parts = [
                generator.permutation(np.concatenate([np.arange(starts[s], ends[s]) for s in group]))
                for group in groups
            ]
            self._cached = (number, np.concatenate(parts))
        return self._cached[1]


@dataclass(frozen=True)
class OrderedSource:
    """What the order must know of a source: its name, kind (``video`` or ``image``), weight and shard sizes."""

    name: str
    kind: str
    weight: float
    shard_sizes: Sequence[int]


@dataclass(frozen=True)
class BatchPlan:
    """The rows of one (part of a) global batch, all of one ``kind``.

    ``sources`` (R,) index the list of sources, ``samples`` (R,) the samples within them; ``positions`` (R,) number all
    rows of the run and key their random numbers.
    """

    kind: str
    sources: np.ndarray
    samples: np.ndarray
    positions: np.ndarray

    def rows(self, start: int, stop: int) -> BatchPlan:
        """Rows ``start`` to ``stop``: what one rank takes."""
        part = slice(start, stop)
        return BatchPlan(self.kind, self.sources[part], self.samples[part], self.positions[part])


class SampleOrder:
    """Which samples make up the global batch of any step. ``rows`` is the number of samples in a global batch."""

    def __init__(self, sources: Sequence[OrderedSource], seed: int, rows: int) -> None:
        self._rows = rows
        self._kinds = sorted({source.kind for source in sources})
        self._members = [np.array([i for i, s in enumerate(sources) if s.kind == kind]) for kind in self._kinds]
        weights = [[sources[i].weight for i in members] for members in self._members]
        self._kind_sequence = WeightedSequence([sum(group) for group in weights], seed, Purpose.KIND)
        self._source_sequences = [
            WeightedSequence(group, seed, Purpose.SOURCE, salt=zlib.crc32(kind.encode()))
            for group, kind in zip(weights, self._kinds, strict=True)
        ]
        # Salted by name: the order within a source does not change when other sources join the mixture.
        self._passes = [PassOrder(s.shard_sizes, seed, salt=zlib.crc32(s.name.encode())) for s in sources]

    def batch(self, step: int) -> BatchPlan:
        """The global batch of ``step`` (0, 1, ...)."""
        kind, ordinal = (int(found[0]) for found in self._kind_sequence.lookup(np.array([step])))
        row = np.arange(self._rows)
        choices, ordinals = self._source_sequences[kind].lookup(ordinal * self._rows + row)
        sources = self._members[kind][choices]
        samples = np.empty_like(sources)
        for source in np.unique(sources):
            here = sources == source
            samples[here] = self._passes[source].lookup(ordinals[here])
        return BatchPlan(self._kinds[kind], sources, samples, step * self._rows + row)


def _apportion(weights: Sequence[float], total: int) -> np.ndarray:
    """Counts in proportion to ``weights`` that sum to ``total`` (largest remainders). Raises UserError if one is 0."""
    quotas = np.asarray(weights, dtype=np.float64) / np.sum(weights) * total
    counts = np.floor(quotas + 1e-9).astype(np.int64)
    by_remainder = np.argsort(counts - quotas, kind="stable")
    counts[by_remainder[: total - counts.sum()]] += 1
    if (counts == 0).any():
        raise UserError(f"a mixture weight is below 1/{total} of the sum; leave that source out or raise its weight")
    return counts

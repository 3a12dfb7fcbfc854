"""Several tasks in one run, each with its share of every batch."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.dataset.base import SPLITS, Dataset, row_hash
from attnlab.ranges import CountOrZero, Weight, ranged
from attnlab.split import IGNORE, Batch, Split


@ranged
class Mixture(Dataset):
    """Trains on several datasets at once, and reports each of them (Caruana 1997).

    `parts` are datasets by name, which share one vocabulary: a token that two of them name alike is
    the same token. Shorter sequences are padded. Without `weights`, every epoch shows each example
    of each part once; with them, each example of a batch is of part i with probability
    `weights[i]` over their sum, and drawn from that part with replacement. With `start`, the
    weights go from there to `weights` in a straight line over `ramp` training examples, a
    curriculum (Bengio et al. 2009). A weight of 0 keeps a part for the test alone.

    The test split is that of all parts, one after the other, and `test_NAME` is that of a part. No
    part is trained on what another one is tested on.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, Dataset | None],
        weights: Mapping[str, Weight] | None = None,
        start: Mapping[str, Weight] | None = None,
        ramp: CountOrZero = 0,
    ) -> None:
        self.parts = {name: part for name, part in parts.items() if part is not None}
        if not self.parts:
            raise ValueError("parts={} must name at least one dataset")
        for name, part in self.parts.items():
            if not {*SPLITS} <= {*part.split_names}:
                raise ValueError(
                    f"parts.{name} has no {' and '.join({*SPLITS} - {*part.split_names})} split"
                )
        self.weights = None if weights is None else self._shares("weights", weights)
        self.start = None if start is None else self._shares("start", start)
        if start is not None and (weights is None or ramp < 1):
            raise ValueError(f"start needs weights to go to, and ramp={ramp} of at least 1 example")
        self.ramp = ramp
        self.tokens = _union(part.tokens for part in self.parts.values())
        self.max_length = max(part.max_length for part in self.parts.values())
        classes = [part.classes for part in self.parts.values()]
        if any(classes) and not all(classes):
            raise ValueError(
                f"parts: {', '.join(self.parts)} must all ask for tokens, or all for classes"
            )
        self.classes = _union(names for names in classes if names) or None
        answers = {part.answer_length is not None: name for name, part in self.parts.items()}
        if len({part.end for part in self.parts.values()}) > 1 or len(answers) > 1:
            raise ValueError(f"parts: {', '.join(self.parts)} must all answer in the same way")
        first = next(iter(self.parts.values()))
        self.end, self.headline = first.end, first.headline
        if first.answer_length is not None:
            self.answer_length = max(part.answer_length or 0 for part in self.parts.values())
        self.split_names = (*SPLITS, *(f"test_{name}" for name in self.parts))

    @property
    def notes(self) -> list[str]:
        """Return those of the parts, and what a part has that an earlier split holds."""
        notes = [f"{name}: {note}" for name, part in self.parts.items() for note in part.notes]
        for split in SPLITS:
            whole = sum(len(part.splits[split]) for part in self.parts.values())
            if left_out := whole - len(self.splits[split]):
                notes.append(
                    f"{split}: {left_out:,} of {whole:,} examples are left out (in an earlier "
                    f"split: {left_out:,})"
                )
        return notes

    def _shares(self, knob: str, given: Mapping[str, float | int]) -> np.ndarray:
        if given.keys() != self.parts.keys():
            raise ValueError(
                f"{knob} must give a number for each of {', '.join(self.parts)}, and has "
                f"{', '.join(given)}"
            )
        numbers = np.array([given[name] for name in self.parts], dtype=np.float64)
        if (numbers < 0).any() or not numbers.sum() > 0:
            raise ValueError(f"{knob}={dict(given)} must not be negative, and not all be 0")
        return numbers / numbers.sum()

    def draw(self, split: str, earlier: Mapping[str, Split]) -> Split:
        if split not in SPLITS:
            name = split.removeprefix("test_")
            return Mixed(self, {name: self.parts[name].splits["test"]})
        held = {name: part.splits[split] for name, part in self.parts.items()}
        mixed = Mixed(self, held)
        seen = [s.hashes() for s in earlier.values() if isinstance(s, Mixed)]
        if seen:
            mixed.keep(~np.isin(mixed.hashes(), np.concatenate(seen)))
        return mixed

    def share(self, example: int) -> np.ndarray | None:
        """Give the parts' probabilities at a training example's number; None without weights."""
        if self.weights is None or self.start is None:
            return self.weights
        gone = min(1.0, example / self.ramp)
        return (1 - gone) * self.start + gone * self.weights

    def words(self, text: str) -> list[str]:
        return next(iter(self.parts.values())).words(text)

    def write(self, numbers: Sequence[int]) -> str:
        names = [self.tokens[number] for number in numbers]
        first = next(iter(self.parts.values()))
        own = {token: at for at, token in enumerate(first.tokens)}
        return first.write([own[n] for n in names]) if own.keys() >= {*names} else " ".join(names)


class Mixed(Split):
    """Splits of several datasets, one after the other, in one vocabulary, padded to one width."""

    def __init__(self, mixture: Mixture, parts: Mapping[str, Split]) -> None:
        self.mixture, self.parts = mixture, list(parts.values())
        of = [mixture.parts[name] for name in parts]
        number = {token: at for at, token in enumerate(mixture.tokens)}
        self.tokens = [torch.tensor([number[token] for token in part.tokens]) for part in of]
        self.labels = self.tokens
        if mixture.classes is not None:
            place = {name: at for at, name in enumerate(mixture.classes)}
            self.labels = [torch.tensor([place[c] for c in part.classes or ()]) for part in of]
        self.kept = [np.arange(len(part)) for part in self.parts]
        self.positional = all(part[0].at is None for part in self.parts)
        same = {part[0].inputs.shape[1] for part in self.parts}
        self.padded = len(same) > 1 or any(part[0].valid is not None for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.kept))

    def keep(self, rows: np.ndarray) -> None:
        """Leave out the examples for which `rows` is False."""
        ends = np.cumsum([len(kept) for kept in self.kept])[:-1]
        self.kept = [k[r] for k, r in zip(self.kept, np.split(rows, ends), strict=True)]

    def batch(self, index: np.ndarray) -> Batch:
        starts = np.concatenate(([0], np.cumsum([len(kept) for kept in self.kept])))
        part = np.searchsorted(starts, index, side="right") - 1
        return self._gathered(part, index - starts[part])

    def choose(self, seed: int, number: int, size: int) -> np.ndarray:
        share = self.mixture.share(number * size)
        if share is None:
            return super().choose(seed, number, size)
        counts = np.array([len(kept) for kept in self.kept])
        if ((share > 0) & (counts == 0)).any():
            raise ValueError("a part with a weight has no training example that is not held back")
        draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, number, 2]))
        part = draw.choice(len(share), size=size, p=share)
        starts = np.cumsum(counts) - counts
        return starts[part] + (draw.random(size) * counts[part]).astype(np.int64)

    def digest(self) -> bytes:
        sha = hashlib.sha256(" ".join(self.mixture.tokens).encode())
        for part, kept in zip(self.parts, self.kept, strict=True):
            sha.update(part.digest() + kept.tobytes())
        return sha.digest()

    def hashes(self) -> np.ndarray:
        """Hash what each example reads, in the common vocabulary."""
        found = []
        for batch in self.batches(4096):
            inputs = batch.inputs if batch.valid is None else batch.inputs.where(batch.valid, -1)
            inputs = F.pad(inputs, (0, self.mixture.max_length - inputs.shape[1]), value=-1)
            found.append(row_hash((inputs + 1).numpy()))
        return np.concatenate(found) if found else np.empty(0, np.uint64)

    def _gathered(self, part: np.ndarray, row: np.ndarray) -> Batch:
        batches = {}
        for number in np.unique(part).tolist():
            rows = self.kept[number][row[part == number]]
            batches[number] = self._translated(number, self.parts[number].batch(rows))
        width = max(batch.inputs.shape[1] for batch in batches.values())
        labels = max(batch.targets.shape[1] for batch in batches.values())
        places = {number: torch.from_numpy(np.flatnonzero(part == number)) for number in batches}

        def joined(fields: Mapping[int, Tensor], wide: int, filler: int) -> Tensor:
            kind = next(iter(fields.values())).dtype
            whole = torch.full((len(part), wide), filler, dtype=kind)
            for number, field in fields.items():
                whole[places[number], : field.shape[1]] = field
            return whole

        inputs = joined({n: b.inputs for n, b in batches.items()}, width, 0)
        targets = joined({n: b.targets for n, b in batches.items()}, labels, IGNORE)
        at = valid = None
        if not self.positional:
            at = joined({n: _places(b) for n, b in batches.items()}, labels, 0)
        if self.padded:
            valid = joined({n: _valid(b) for n, b in batches.items()}, width, False)
        return Batch(inputs, targets, at, valid)

    def _translated(self, number: int, batch: Batch) -> Batch:
        labels = self.labels[number][batch.targets.clamp(min=0)]
        targets = labels.masked_fill(batch.targets == IGNORE, IGNORE)
        return batch._replace(inputs=self.tokens[number][batch.inputs], targets=targets)


def _places(batch: Batch) -> Tensor:
    if batch.at is not None:
        return batch.at
    return torch.arange(batch.targets.shape[1]).expand_as(batch.targets)


def _valid(batch: Batch) -> Tensor:
    return torch.ones_like(batch.inputs, dtype=torch.bool) if batch.valid is None else batch.valid


def _union(vocabularies: Iterable[Iterable[str]]) -> list[str]:
    """List the names of all vocabularies, each once, in their order."""
    return list(dict.fromkeys(name for names in vocabularies for name in names))

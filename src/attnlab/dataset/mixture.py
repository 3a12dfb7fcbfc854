"""Several tasks in one run, each with its share of every batch."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.dataset.base import SPLITS, Dataset, hash_rows
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
        self.weights = None if weights is None else self._normalize_weights("weights", weights)
        self.start = None if start is None else self._normalize_weights("start", start)
        if start is not None and (weights is None or ramp < 1):
            raise ValueError(f"start needs weights to go to, and ramp={ramp} of at least 1 example")
        self.ramp = ramp
        self.tokens = _merge_names(part.tokens for part in self.parts.values())
        self.max_length = max(part.max_length for part in self.parts.values())
        classes = [part.classes for part in self.parts.values()]
        if any(classes) and not all(classes):
            raise ValueError(
                f"parts: {', '.join(self.parts)} must all ask for tokens, or all for classes"
            )
        self.classes = _merge_names(names for names in classes if names) or None
        part_by_has_answer = {
            part.answer_length is not None: name for name, part in self.parts.items()
        }
        if len({part.end for part in self.parts.values()}) > 1 or len(part_by_has_answer) > 1:
            raise ValueError(f"parts: {', '.join(self.parts)} must all answer in the same way")
        first_part = next(iter(self.parts.values()))
        self.end, self.headline = first_part.end, first_part.headline
        if first_part.answer_length is not None:
            self.answer_length = max(part.answer_length or 0 for part in self.parts.values())
        self.split_names = (*SPLITS, *(f"test_{name}" for name in self.parts))

    @property
    def notes(self) -> list[str]:
        """The parts' notes, and how many of their examples are in an earlier split."""
        notes = [f"{name}: {note}" for name, part in self.parts.items() for note in part.notes]
        for split in SPLITS:
            num_examples = sum(len(part.splits[split]) for part in self.parts.values())
            num_left_out = num_examples - len(self.splits[split])
            if num_left_out:
                notes.append(
                    f"{split}: {num_left_out:,} of {num_examples:,} examples are left out "
                    f"(in an earlier split: {num_left_out:,})"
                )
        return notes

    def _normalize_weights(self, knob: str, weights: Mapping[str, float | int]) -> np.ndarray:
        """Return the parts' probabilities, in order. Raises ValueError for an unfit weight."""
        if weights.keys() != self.parts.keys():
            raise ValueError(
                f"{knob} must give a number for each of {', '.join(self.parts)}, and has "
                f"{', '.join(weights)}"
            )
        ordered_weights = np.array([weights[name] for name in self.parts], dtype=np.float64)
        if (ordered_weights < 0).any() or not ordered_weights.sum() > 0:
            raise ValueError(f"{knob}={dict(weights)} must not be negative, and not all be 0")
        return ordered_weights / ordered_weights.sum()

    def build_split(self, split: str, earlier: Mapping[str, Split]) -> Split:
        if split not in SPLITS:
            name = split.removeprefix("test_")
            return Mixed(self, {name: self.parts[name].splits["test"]})
        mixture_split = Mixed(self, {name: part.splits[split] for name, part in self.parts.items()})
        earlier_hashes = [
            earlier_split.hashes()
            for earlier_split in earlier.values()
            if isinstance(earlier_split, Mixed)
        ]
        if earlier_hashes:
            mixture_split.keep(~np.isin(mixture_split.hashes(), np.concatenate(earlier_hashes)))
        return mixture_split

    def part_probabilities(self, example: int) -> np.ndarray | None:
        """Return the parts' probabilities at a training example's number; None without weights."""
        if self.weights is None or self.start is None:
            return self.weights
        progress = min(1.0, example / self.ramp)
        return (1 - progress) * self.start + progress * self.weights

    def tokenize(self, text: str) -> list[str]:
        return next(iter(self.parts.values())).tokenize(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        names = [self.tokens[token_id] for token_id in token_ids]
        first_part = next(iter(self.parts.values()))
        id_of = {token: token_id for token_id, token in enumerate(first_part.tokens)}
        if not id_of.keys() >= {*names}:
            return " ".join(names)
        return first_part.decode([id_of[name] for name in names])


class Mixed(Split):
    """Splits of several datasets, one after the other, in one vocabulary, padded to one width."""

    def __init__(self, mixture: Mixture, split_by_part: Mapping[str, Split]) -> None:
        self.mixture, self.parts = mixture, list(split_by_part.values())
        datasets = [mixture.parts[name] for name in split_by_part]
        self.tokens = [_id_map(mixture.tokens, dataset.tokens) for dataset in datasets]
        self.labels = self.tokens
        if mixture.classes is not None:
            self.labels = [_id_map(mixture.classes, data.classes or ()) for data in datasets]
        self.examples_by_part = [np.arange(len(part)) for part in self.parts]
        self.positional = all(part[0].at is None for part in self.parts)
        widths = {part[0].inputs.shape[1] for part in self.parts}
        self.padded = len(widths) > 1 or any(part[0].valid is not None for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.examples_by_part))

    def keep(self, is_kept: np.ndarray) -> None:
        """Leave out the examples for which `is_kept` is False."""
        ends = np.cumsum([len(examples) for examples in self.examples_by_part])[:-1]
        masks = np.split(is_kept, ends)
        self.examples_by_part = [
            examples[mask] for examples, mask in zip(self.examples_by_part, masks, strict=True)
        ]

    def batch(self, index: np.ndarray) -> Batch:
        starts = np.concatenate(
            ([0], np.cumsum([len(examples) for examples in self.examples_by_part]))
        )
        part_of_row = np.searchsorted(starts, index, side="right") - 1
        return self._gather(part_of_row, index - starts[part_of_row])

    def batch_indices(self, seed: int, number: int, size: int) -> np.ndarray:
        probabilities = self.mixture.part_probabilities(number * size)
        if probabilities is None:
            return super().batch_indices(seed, number, size)
        counts = np.array([len(examples) for examples in self.examples_by_part])
        if ((probabilities > 0) & (counts == 0)).any():
            raise ValueError("a part with a weight has no training example that is not held back")
        generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, number, 2]))
        part_of_row = generator.choice(len(probabilities), size=size, p=probabilities)
        starts = np.cumsum(counts) - counts
        return starts[part_of_row] + (generator.random(size) * counts[part_of_row]).astype(np.int64)

    def digest(self) -> bytes:
        sha = hashlib.sha256(" ".join(self.mixture.tokens).encode())
        for part, examples in zip(self.parts, self.examples_by_part, strict=True):
            sha.update(part.digest() + examples.tobytes())
        return sha.digest()

    def hashes(self) -> np.ndarray:
        """Return a hash of each example's inputs, in the common vocabulary."""
        hashes = []
        for batch in self.batches(4096):
            inputs = batch.inputs if batch.valid is None else batch.inputs.where(batch.valid, -1)
            inputs = F.pad(inputs, (0, self.mixture.max_length - inputs.shape[1]), value=-1)
            hashes.append(hash_rows((inputs + 1).numpy()))
        return np.concatenate(hashes) if hashes else np.empty(0, np.uint64)

    def _gather(self, part_of_row: np.ndarray, row_in_part: np.ndarray) -> Batch:
        """Return one batch with the examples of several parts, padded to one width."""
        batches, rows = {}, {}
        for part in np.unique(part_of_row).tolist():
            examples = self.examples_by_part[part][row_in_part[part_of_row == part]]
            batches[part] = self._translate(part, self.parts[part].batch(examples))
            rows[part] = torch.from_numpy(np.flatnonzero(part_of_row == part))
        width = max(batch.inputs.shape[1] for batch in batches.values())
        num_labels = max(batch.targets.shape[1] for batch in batches.values())

        def merge(fields: Mapping[int, Tensor], columns: int, filler: int) -> Tensor:
            dtype = next(iter(fields.values())).dtype
            merged = torch.full((len(part_of_row), columns), filler, dtype=dtype)
            for part, field in fields.items():
                merged[rows[part], : field.shape[1]] = field
            return merged

        inputs = merge({part: batch.inputs for part, batch in batches.items()}, width, 0)
        all_targets = {part: batch.targets for part, batch in batches.items()}
        targets = merge(all_targets, num_labels, IGNORE)
        label_positions = valid = None
        if not self.positional:
            positions = {part: _label_positions(batch) for part, batch in batches.items()}
            label_positions = merge(positions, num_labels, 0)
        if self.padded:
            masks = {part: _valid_positions(batch) for part, batch in batches.items()}
            valid = merge(masks, width, False)
        return Batch(inputs, targets, label_positions, valid)

    def _translate(self, part: int, batch: Batch) -> Batch:
        """Return a part's batch with the ids of the common vocabulary and classes."""
        labels = self.labels[part][batch.targets.clamp(min=0)]
        targets = labels.masked_fill(batch.targets == IGNORE, IGNORE)
        return batch._replace(inputs=self.tokens[part][batch.inputs], targets=targets)


def _id_map(common_names: Sequence[str], names: Sequence[str]) -> Tensor:
    """Return the index among the common names of each name."""
    index_of = {name: index for index, name in enumerate(common_names)}
    return torch.tensor([index_of[name] for name in names])


def _label_positions(batch: Batch) -> Tensor:
    """Return the position of each label, also where every position has one."""
    if batch.at is not None:
        return batch.at
    return torch.arange(batch.targets.shape[1]).expand_as(batch.targets)


def _valid_positions(batch: Batch) -> Tensor:
    """Return False at padding, also for a batch without padding."""
    return torch.ones_like(batch.inputs, dtype=torch.bool) if batch.valid is None else batch.valid


def _merge_names(vocabularies: Iterable[Iterable[str]]) -> list[str]:
    """Return the names of all vocabularies, each once, in their order."""
    return list(dict.fromkeys(name for names in vocabularies for name in names))

"""Predict a token from the earlier ones."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from attnlab.dataset.base import Corpus, Dataset
from attnlab.model.base import DECODER
from attnlab.objective.base import BEGIN, Objective
from attnlab.split import IGNORE, Batch


class Autoregressive(Objective):
    """Answers with tokens, each from what stands before it (Bengio et al. 2003, eq. 1).

    A dataset whose labels are tokens (recall tasks, text) asks its own. One whose labels are
    classes is read as plain sequences, and every next token is asked. Where an answer is a sequence
    of its own, it follows what it answers, after a token `[BEGIN]`, and it alone is asked.

    With `document_mask`, a position sees its own document alone, from the token that begins it
    (`<document>` of the dataset `documents`); positions are still counted from the beginning of the
    sequence. Only mixers with a softmax over positions can do so.
    """

    arrangement = DECODER

    def __init__(self, dataset: Dataset, *, document_mask: bool = False) -> None:
        super().__init__(dataset)
        if document_mask:
            if dataset.boundary is None:
                raise ValueError(
                    f"document_mask=true needs documents that are kept apart, and the data "
                    f"({type(dataset).__name__}) have no token between them; use dataset=documents"
                )
            boundary = dataset.tokens.index(dataset.boundary)
            self.arrangement = replace(DECODER, boundary=boundary)

    @property
    def inputs(self) -> Sequence[str]:
        return self.dataset.tokens if self.begin is None else [*self.dataset.tokens, BEGIN]

    @property
    def outputs(self) -> Sequence[str]:
        return self.inputs

    @property
    def begin(self) -> int | None:
        return None if self.dataset.answer_length is None else len(self.dataset.tokens)

    @property
    def max_length(self) -> int:
        return self.dataset.max_length + (self.dataset.answer_length or 0)

    def training_batch(self, batch: Batch) -> Batch:
        if self.begin is not None:
            return self._append_answers(batch)
        if self.dataset.classes is None:
            return batch
        targets = batch.inputs[:, 1:]
        valid = None
        if batch.valid is not None:
            targets = torch.where(batch.valid[:, 1:], targets, IGNORE)
            valid = batch.valid[:, :-1]
        return Batch(batch.inputs[:, :-1], targets, None, valid)

    def inspection_batch(self, batch: Batch) -> Batch:
        if self.begin is not None:
            return self._append_answers(batch._replace(targets=batch.targets[:, :1]))
        if self.dataset.classes is None:
            return batch
        return Batch(batch.inputs, torch.full_like(batch.inputs, IGNORE), None, batch.valid)

    def _append_answers(self, batch: Batch) -> Batch:
        """Append each answer to its question, without the padding between them."""
        inputs, targets = batch.inputs, batch.targets
        question_lengths = (
            inputs.shape[1] if batch.valid is None else batch.valid.sum(dim=1, keepdim=True)
        )
        assert self.begin is not None
        begin = torch.full_like(targets[:, :1], self.begin)
        answer_inputs = torch.cat((begin, targets[:, :-1].clamp(min=0)), dim=1)
        label_positions = torch.arange(targets.shape[1], device=targets.device) + question_lengths
        label_positions = label_positions.expand_as(targets)
        padded_inputs = torch.cat((inputs, torch.zeros_like(targets)), dim=1)
        joined = padded_inputs.scatter(1, label_positions, answer_inputs)
        positions = torch.arange(joined.shape[1], device=targets.device)
        answer_lengths = (targets != IGNORE).sum(dim=1, keepdim=True).clamp(min=1)
        valid = positions < question_lengths + answer_lengths
        return Batch(joined, targets, label_positions, valid)

    def derived_metrics(self, split: str, loss: float) -> dict[str, float]:
        """Return the perplexity of a text, and its loss in bits for each byte (UTF-8)."""
        if not isinstance(self.dataset, Corpus):
            return {}
        bits = loss / math.log(2) / self.dataset.bytes_per_token(split)
        return {"perplexity": math.exp(min(loss, 700)), "bits_per_byte": bits}

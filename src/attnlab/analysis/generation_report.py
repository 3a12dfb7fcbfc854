"""Texts that a run generates for a prompt: samples, or the best answers of a beam search.

import attnlab
from attnlab.analysis.generation_report import DrawSettings, generation_report

run = attnlab.load("pydocs-lstm")
generation_report(run, "The import statement", DrawSettings(tokens=50, top_p=0.9)).samples
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from attnlab.analysis.report import IN_PYTHON, Report
from attnlab.errors import RequestError
from attnlab.generate import require_search, require_settings

if TYPE_CHECKING:
    from attnlab.loaded_run import LoadedRun


@dataclass(frozen=True)
class DrawSettings:
    """How texts are sampled. Raises RequestError for settings with which no model can sample."""

    tokens: int = 500
    """The largest number of tokens after the prompt."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int | None = None
    """The number of likeliest tokens to sample from; None takes all."""
    top_p: float | None = None
    """The share of probability of the likeliest tokens to sample from; None takes all."""
    seed: int = 0
    """The seed of the first text; each further text has the next seed."""
    samples: int = field(default=1, metadata=IN_PYTHON)
    """The number of texts."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise RequestError(f"samples={self.samples} must be at least 1")
        require_settings(self.tokens, self.temperature, self.top_k, self.top_p, self.seed)


@dataclass(frozen=True)
class SearchSettings:
    """How answers are searched. Raises RequestError for settings that no search can have."""

    beams: int
    length_penalty: float = 0.0
    """The power of ((5 + tokens) / 6) that divides log-probabilities."""

    def __post_init__(self) -> None:
        require_search(self.beams, self.length_penalty)


@dataclass(frozen=True)
class GenerationReport(Report):
    """Texts that were sampled."""

    run: str
    step: int
    prompt: str
    settings: DrawSettings
    samples: Sequence[str]
    """The continuations of the prompt, or the answers to it, without the prompt."""


@dataclass(frozen=True)
class AnswerHypothesis:
    """An answer that a search found."""

    text: str
    finished: bool
    """Whether it ends; otherwise it has the greatest allowed length."""
    log_probability: float
    """In nats."""
    score: float
    """The number by which answers are ranked."""


@dataclass(frozen=True)
class SearchReport(Report):
    """The best answers that a search found."""

    run: str
    step: int
    prompt: str
    settings: SearchSettings
    hypotheses: Sequence[AnswerHypothesis]
    """The best first."""


def generation_report(
    loaded_run: "LoadedRun", prompt: str, settings: DrawSettings
) -> GenerationReport:
    """Return texts that continue or answer a prompt. Raises RequestError as `generate` does."""
    samples = ["".join(pieces) for pieces in sample_texts(loaded_run, prompt, settings)]
    return GenerationReport(loaded_run.record.name, loaded_run.step, prompt, settings, samples)


def sample_texts(
    loaded_run: "LoadedRun", prompt: str, settings: DrawSettings
) -> Iterator[Iterator[str]]:
    """Yield for each text an iterator of its pieces, which are sampled as it is consumed."""
    for seed in range(settings.seed, settings.seed + settings.samples):
        yield loaded_run.generate(
            prompt,
            settings.tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            seed=seed,
        )


def search_report(loaded_run: "LoadedRun", prompt: str, settings: SearchSettings) -> SearchReport:
    """Return the best answers to a prompt.

    Raises RequestError for a run that is no sequence-to-sequence model.
    """
    hypotheses = loaded_run.search(prompt, settings.beams, length_penalty=settings.length_penalty)
    answers = [
        AnswerHypothesis(
            loaded_run.dataset.decode(hypothesis.tokens),
            hypothesis.finished,
            hypothesis.log_probability,
            hypothesis.score,
        )
        for hypothesis in hypotheses
    ]
    return SearchReport(loaded_run.record.name, loaded_run.step, prompt, settings, answers)

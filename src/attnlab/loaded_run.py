"""A trained run in Python: its model, data and config, ready to be asked."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from inspect import isclass
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from attnlab.assemble import Experiment
from attnlab.building import NOTHING, Own, first_line, is_allowed
from attnlab.callbacks.patterns import patterns
from attnlab.config import SECTIONS, Config, changed, own_parts
from attnlab.dataset.base import Dataset
from attnlab.environment import default_runs_dir
from attnlab.errors import RecordError, RecordWarning, RequestError
from attnlab.generate import (
    Hypothesis,
    choose,
    generate,
    pieces,
    require_search,
    require_settings,
    search,
)
from attnlab.interp.attribution import influence_matrix, mixing, shares
from attnlab.interp.capture import ActivationCapture, capture
from attnlab.interp.embeddings import Embeddings
from attnlab.interp.observe import moved
from attnlab.interp.subject import Subject
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.run_record.checkpoint import Checkpoint, last_checkpoint
from attnlab.run_record.history import without_revisions
from attnlab.run_record.patterns import Pattern, Weights
from attnlab.run_record.record import Record, resolve
from attnlab.signatures import add_defaults, targets
from attnlab.split import Batch


@dataclass(frozen=True)
class LoadedRun:
    """A run's newest checkpoint, in evaluation mode, with what it was trained on.

    `record` and `edit` of `attnlab` reach into `model` while a text is asked.
    """

    record: Record
    step: int
    experiment: Experiment
    model: Model

    @property
    def dataset(self) -> Dataset:
        return self.experiment.dataset

    @property
    def config(self) -> Mapping[str, Any]:
        return self.experiment.config.values

    @property
    def objective(self) -> Objective:
        return self.experiment.objective

    @property
    def changes(self) -> list[str]:
        """Why this code may give other numbers than the code that trained the run."""
        return without_revisions(self.record.identity)[1]

    @property
    def embeddings(self) -> Embeddings:
        """The vector of each token that the model reads."""
        vectors = self.model.token_vectors
        if vectors is None:
            raise RequestError(f"{type(self.model).__name__} has no vector of its own for a token")
        return Embeddings(self.objective.inputs, vectors.detach().float())

    def __call__(self, text: str) -> Float[Tensor, " output"]:
        """The logits of what the model answers to a text; the last, where it answers at several.

        Of an answer that is a sequence, those of its first token.
        """
        with torch.no_grad(), self.precision():
            return self.model(*self.objective.probe(self.read(text)).given)[0][0, -1]

    def read(self, text: str) -> Batch:
        """Part a text into the run's tokens. Raises RequestError for words it does not have.

        A masked run is asked at each `[MASK]` of the text, and everywhere where there is none.
        """
        try:
            return self.objective.read(text)
        except ValueError as error:
            raise RequestError(str(error)) from error

    @cached_property
    def subject(self) -> Subject:
        """The model, as whoever looks into it needs it."""
        batch_size = self.experiment.batch_size
        return Subject(self.model, self.objective, self.precision, batch_size)

    def capture(self, text: str) -> tuple[ActivationCapture, list[Pattern]]:
        """Return who looks at whom in a text, and the same in the form of the record."""
        captured = capture(self.subject, self.read(text))
        return captured, patterns(captured, self.objective, self.step, text)

    def mixing(self, text: str) -> list[Pattern]:
        """Return what each layer without attention mixes, as shares of a row's absolute values.

        The last is the influence of each token on the answer at each position that can be asked.
        """
        asked = moved(self.objective.probe(self.read(text)), self.subject.device)
        with self.precision():
            matrices = mixing(self.model, asked)
            influences = influence_matrix(self.model, asked)
        captured = self.capture(text)[0]
        weights: dict[Any, Tensor] = {layer: shares(m) for layer, m in matrices.items()}
        *mixed, answering = patterns(
            replace(captured, weights=weights), self.objective, self.step, text
        )
        num_queries = len(influences)
        asked_at = answering.asked_at if asked.prefix is None else num_queries - 1
        reading = None
        if asked.prefix is not None:
            reading = [self.objective.inputs[int(token)] for token in asked.prefix[0]]
        whole = replace(
            answering,
            query_at=list(range(num_queries)),
            asked_at=asked_at,
            data=Weights(rearrange(influences, "q k -> 1 q k").cpu().numpy()),
            reading=reading,
        )
        return [*mixed, whole]

    def generate(
        self,
        prompt: str,
        tokens: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Iterator[str]:
        """Continue a prompt: the text of each new token, as it comes (`attnlab.generate`).

        An empty prompt is a line feed, where the data have one. Of a prompt that is longer than
        the model reads, the end counts. Of a run that answers sequences by sequences, the prompt
        is the one that is answered. Raises RequestError, at once, for what cannot be.
        """
        require_settings(tokens, temperature, top_k, top_p, seed)
        size = len(self.dataset.tokens)
        if top_k is not None and top_k > size:
            raise RequestError(f"top_k={top_k} exceeds the {size} tokens of the vocabulary")
        generator = torch.Generator().manual_seed(seed)
        draw = partial(
            choose, generator=generator, temperature=temperature, top_k=top_k, top_p=top_p
        )
        if self.objective.begin is not None:
            return self._answer(prompt, tokens, draw)
        if not self.objective.causal or list(self.objective.outputs) != self.dataset.tokens:
            raise RequestError(
                f"{self.record.name} was trained for {self._task}, which names no next token; "
                "generate from a run with objective=autoregressive or seq2seq"
            )
        numbers = self._prompt(prompt)
        drawn = generate(self.model, numbers, draw, self.precision)
        return pieces(islice(drawn, tokens), numbers, self.dataset.write)

    def search(
        self, prompt: str, beams: int = 5, *, length_penalty: float = 0.0
    ) -> list[Hypothesis]:
        """Find the best answers to a sequence, the best first (`attnlab.generate.search`).

        Raises RequestError for a run that answers no sequences by sequences.
        """
        require_search(beams, length_penalty)
        if not isinstance(self.objective, Seq2Seq):
            raise RequestError(
                f"{self.record.name} was trained for {self._task}, whose answers have no end to "
                "search for; beams need a run with objective=seq2seq"
            )
        begin, end, longest = self._answers_span()
        return search(
            *(self.model, self.read(prompt).inputs, begin, end, longest),
            beams=beams,
            length_penalty=length_penalty,
            precision=self.precision,
        )

    def _answer(
        self, source: str, tokens: int, draw: Callable[[Float[Tensor, " token"]], int]
    ) -> Iterator[str]:
        read = self.read(source).inputs
        begin, end, longest = self._answers_span()
        opening, state = [*read[0].tolist(), begin], None
        if self.model.arrangement.encoder:
            opening = [begin]
            with torch.no_grad(), self.precision():
                state = self.model.start(read)

        def pick(logits: Float[Tensor, " token"]) -> int:
            # What opens an answer stands nowhere in it.
            return draw(logits.index_fill(0, torch.tensor([begin]), -torch.inf))

        drawn = islice(
            generate(self.model, opening, pick, self.precision, state), min(tokens, longest)
        )
        return pieces(takewhile(lambda token: token != end, drawn), [], self.dataset.write)

    def _answers_span(self) -> tuple[int, int, int]:
        """Give the tokens from and to which an answer goes, and how many it has at most."""
        objective, data = self.objective, self.dataset
        assert objective.begin is not None
        assert data.end is not None
        assert data.answer_length is not None
        return objective.begin, data.tokens.index(data.end), data.answer_length

    @property
    def _task(self) -> str:
        return type(self.objective).__name__.lower()

    def _prompt(self, text: str) -> list[int]:
        if not text and set(self.dataset.words("\n")) <= set(self.dataset.tokens):
            text = "\n"
        try:
            numbers = self.dataset.numbers(text)
        except ValueError as error:
            raise RequestError(str(error)) from error
        if not numbers:
            raise RequestError(
                "the prompt is empty, and these data have no line feed to start from; "
                "give at least one token"
            )
        return numbers

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """Loss and metrics on a whole split. Raises RequestError where the data have none such."""
        if split not in self.dataset.split_names:
            there = ", ".join(self.dataset.split_names)
            raise RequestError(f"the data have no {split} split; there is {there}")
        return self.experiment.evaluate(split, self.subject, sliced=True)

    def answers(self, logits: Float[Tensor, " output"], count: int = 3) -> list[tuple[str, float]]:
        """Name the likeliest outputs, each with its probability."""
        names = self.objective.outputs
        best = logits.float().softmax(dim=0).topk(min(count, len(logits)))
        return [(names[int(at)], float(p)) for p, at in zip(*best, strict=True)]

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The context of a forward pass, as in training."""
        trainer, before = self.config["trainer"], torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(trainer["matmul_precision"])
        try:
            # On a CPU, Lightning takes 16-mixed for bf16-mixed.
            mixed = trainer["precision"] in ("bf16-mixed", "16-mixed")
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


WHOLE = {"bf16-true": torch.bfloat16, "64-true": torch.float64}


def load(
    run: str | Path,
    *,
    runs_dir: str | Path | None = None,
    config_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> LoadedRun:
    """Load a run, named by its directory or a unique prefix of its name, onto the CPU.

    `runs_dir` is $ATTNLAB_RUNS or "runs" unless given. `overrides` change the data
    ("dataset.length=128"), not the weights. A run with parts of your own needs the `config_dir`
    that it was trained with. Raises RequestError where there is no such run or no checkpoint of its
    last step. Warns (RecordWarning) of what has changed since it was trained, and of damage that
    was passed over.
    """
    directory = Path(runs_dir or default_runs_dir())
    record = resolve(str(run), directory)
    checkpoint, damaged = last_checkpoint(record)
    if wrong := [word for word in overrides if not word.startswith("dataset.")]:
        raise RequestError(
            f"{', '.join(wrong)}: a trained run can only meet other data; give dataset.KEY=VALUE"
        )
    own = NOTHING if config_dir is None else own_parts(Path(config_dir))
    _require_own(record, own)
    _require_no_path(record)
    try:
        config = _config(record.identity, own)
        trained_on = Experiment(config)
        experiment = Experiment(changed(config, overrides)) if overrides else trained_on
        model = _model(experiment, trained_on, checkpoint)
    except RequestError:
        raise
    except FAILURES as error:
        said = f"{type(error).__name__}: {first_line(error)}"
        raise RecordError(f"{record.name} cannot be built from its record ({said})") from error
    trained = LoadedRun(record, checkpoint.step, experiment, model)
    for sentence in damaged:
        warnings.warn(sentence, RecordWarning, stacklevel=3)
    if trained.changes:
        said = "; ".join(trained.changes)
        sentence = f"the numbers have changed since {record.name} was trained ({said})"
        warnings.warn(sentence, RecordWarning, stacklevel=3)
    return trained


ASKED = ("seed", "batch_size", *SECTIONS, "metric")
"""What of an identity a trained run is made from; callbacks and the like belong to training."""


def _config(identity: Mapping[str, Any], own: Own) -> Config:
    """Turn an identity back into the config that it was made from."""
    values, _ = without_revisions(identity)
    values = {k: v for k, v in values.items() if k in ASKED}
    dataset, trainer = values.get("dataset", {}), values.get("trainer", {})
    choices = {"variant": identity.get("variant"), "dataset": dataset.pop("name", None)}
    trainer["accelerator"] = "auto"
    # An older record lacks the knobs that came after it, which then had no effect.
    values.setdefault("init", {"_target_": "attnlab.init.base.Init"})
    for section, value in values.items():
        for node in targets(value):
            add_defaults(node, section, own)
            for knob, default in node.items():
                if isclass(default):
                    name = f"{default.__module__}.{default.__qualname__}"
                    node[knob] = {"_target_": name, "_partial_": True}
    return changed(Config(values, choices, own), ())


FAILURES = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, MemoryError),
)
"""What parts raise that are given what they never expected."""


def _require_no_path(record: Record) -> None:
    """Refuse a run that says where data lie; which data they are, it says by their SHA-256.

    Raises RecordError.
    """
    for node in targets(record.identity.get("dataset")):
        ours = str(node["_target_"]).startswith("attnlab.")
        if ours and node.get("path") is not None:
            raise RecordError(
                f"{record.name} names {node['path']!r} as its data, and no record of attnlab names "
                "a path; train it again, or take the path out"
            )


def _require_own(record: Record, own: Own) -> None:
    """Refuse a run with parts that this call does not allow, and say what would.

    Raises RecordError; nothing has been imported by then.
    """
    identity = record.identity
    parts = [
        (section, node["_target_"])
        for section in ASKED
        for node in targets(identity.get(section))
        if not is_allowed(node["_target_"], section, own)
    ]
    for section, name in parts:
        if not isinstance(name, str) or name.startswith("attnlab."):
            raise RecordError(f"{record.name}: {name} is none of what {section} is built from")
    foreign = [name for _, name in parts]
    if not foreign:
        return
    summary = next((a.summary for a in reversed(record.attempts) if a.summary), None)
    directory, hashes = (summary.config_dir, summary.code) if summary else (None, {})
    where = f"; the run was trained with --config-dir {directory}" if directory else ""
    sources = [
        f"{name} (SHA-256 of its source then: {hashes[name][:16]})" if name in hashes else name
        for name in dict.fromkeys(foreign)
    ]
    raise RecordError(
        f"{record.name} is built from {', '.join(sources)}, which is not attnlab's: give the "
        f"--config-dir whose YAMLs name it, if you trust that code{where}"
    )


def _model(experiment: Experiment, trained_on: Experiment, checkpoint: Checkpoint) -> Model:
    # First the data that were asked for: a text that they name is then found by its content.
    now, before = experiment.dataset, trained_on.dataset
    if (before.tokens, before.classes) != (now.tokens, now.classes):
        raise RequestError(
            "the run was trained on other tokens or classes than these data have; "
            "change only knobs that leave the vocabulary as it is"
        )
    weights = _weights(checkpoint)
    layers = experiment.config.values["model"].get("num_layers", 0)
    if layers > len(weights):
        raise RecordError(
            f"{layers} layers cannot have the {len(weights)} weights of the checkpoint"
        )
    model = experiment.model
    dtype = WHOLE.get(experiment.config.values["trainer"]["precision"])
    try:
        (model.to(dtype) if dtype else model).load_state_dict(weights)
    except RuntimeError as error:
        if now.max_length != before.max_length:
            raise RequestError(
                f"the run learned positions for {before.max_length} tokens, and these data have "
                f"{now.max_length}; train with model/position=rope, or use shorter data"
            ) from error
        raise RequestError(
            f"the weights do not fit the code, which has changed since: {error}"
        ) from error
    return model.eval().requires_grad_(False)


def _weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read the model's weights out of what Lightning saved; nothing else in it is used."""
    prefix = "model."
    try:
        state = torch.load(io.BytesIO(checkpoint.content), map_location="cpu", weights_only=True)
        found = state["state_dict"].items()
        weights = {name.removeprefix(prefix): w for name, w in found if name.startswith(prefix)}
        if wrong := [name for name, weight in weights.items() if not isinstance(weight, Tensor)]:
            raise TypeError(f"{', '.join(wrong)}: expected a tensor")
        return weights
    except Exception as error:  # What a foreign file raises is not foreseen anywhere.
        said = f"{type(error).__name__}: {first_line(error)}"
        raise RecordError(
            f"the checkpoint of step {checkpoint.step} holds no weights that can be read ({said})"
        ) from error

"""A trained run in Python: its model, dataset and config, for further analysis."""

import io
import shlex
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

from attnlab.building import NO_USER_TARGETS, UserTargets, first_line, is_allowed
from attnlab.callbacks.patterns import captured_patterns
from attnlab.config import SECTIONS, Config, change_config, load_user_targets
from attnlab.dataset.base import Dataset
from attnlab.errors import RecordError, RecordWarning, RequestError
from attnlab.evaluation.evaluate import evaluate_in_full
from attnlab.experiment import Experiment
from attnlab.generate import (
    Hypothesis,
    beam_search,
    decode_pieces,
    draw_token,
    generate,
    require_search,
    require_settings,
)
from attnlab.interp.attribution import influence_matrix, mixing_matrices, row_shares
from attnlab.interp.capture import ActivationCapture, capture
from attnlab.interp.embeddings import Embeddings
from attnlab.interp.observe import to_device
from attnlab.interp.subject import Subject
from attnlab.model.base import Model
from attnlab.objective.base import Objective
from attnlab.objective.seq2seq import Seq2Seq
from attnlab.precision import forward_context, parameter_type
from attnlab.run_record.checkpoint import Checkpoint, last_checkpoint
from attnlab.run_record.history import strip_revisions
from attnlab.run_record.pattern_table import Pattern, PatternWeights
from attnlab.run_record.record import Record
from attnlab.run_record.run_ref import RunRef, find_record
from attnlab.signatures import add_defaults, target_nodes
from attnlab.split import Batch


@dataclass(frozen=True)
class LoadedRun:
    """A run's newest checkpoint in evaluation mode, with its dataset, objective and config.

    `record` and `edit` of `attnlab` read and change values of `model` during a call.
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
        """The reasons why this code may give other numbers than the code that trained the run."""
        return strip_revisions(self.record.identity)[1]

    @property
    def embeddings(self) -> Embeddings:
        """The vector of each token that the model reads."""
        vectors = self.model.token_vectors
        if vectors is None:
            raise RequestError(f"{type(self.model).__name__} has no vector of its own for a token")
        return Embeddings(self.objective.inputs, vectors.detach().float())

    def __call__(self, text: str) -> Float[Tensor, " output"]:
        """Return the logits of the model's answer to a text; the last answer, if there are several.

        For a sequence-to-sequence model, they are the logits of the first answer token.
        """
        with torch.no_grad(), self.precision():
            return self.model(
                *self.objective.inspection_batch(self.batch_of_text(text)).model_inputs
            )[0][0, -1]

    def batch_of_text(self, text: str) -> Batch:
        """Return the batch of a text in the run's tokens. Raises RequestError for unknown words.

        For a masked run, labels are at each `[MASK]` of the text, or everywhere if it has none.
        """
        try:
            return self.objective.batch_of_text(text)
        except ValueError as error:
            raise RequestError(str(error)) from error

    @cached_property
    def subject(self) -> Subject:
        """The model and its objective, for the functions of `attnlab.interp`."""
        batch_size = self.experiment.batch_size
        return Subject(self.model, self.objective, self.precision, batch_size)

    def capture(self, text: str) -> tuple[ActivationCapture, list[Pattern]]:
        """Return attention and influence on a text, as tensors and as patterns of the record."""
        activations = capture(self.subject, self.batch_of_text(text))
        return activations, captured_patterns(activations, self.objective, self.step, text)

    def mixing_patterns(self, text: str, captured: ActivationCapture) -> list[Pattern]:
        """Return the mixing matrix of each layer without attention, as shares of absolute values.

        The last pattern is the influence of each token on the answer at each position. `captured`
        is what `capture` returned for the text.
        """
        batch = to_device(
            self.objective.inspection_batch(self.batch_of_text(text)), self.subject.device
        )
        with self.precision():
            matrices = mixing_matrices(self.model, batch)
            influences = influence_matrix(self.model, batch)
        shares_by_layer: dict[Any, Tensor] = {
            layer: row_shares(matrix) for layer, matrix in matrices.items()
        }
        *layer_patterns, answer_pattern = captured_patterns(
            replace(captured, weights=shares_by_layer), self.objective, self.step, text
        )
        num_queries = len(influences)
        answer_position = (
            answer_pattern.answer_position if batch.prefix is None else num_queries - 1
        )
        prefix_tokens = None
        if batch.prefix is not None:
            prefix_tokens = [self.objective.inputs[int(token)] for token in batch.prefix[0]]
        influence_pattern = replace(
            answer_pattern,
            query_at=list(range(num_queries)),
            answer_position=answer_position,
            data=PatternWeights(rearrange(influences, "q k -> 1 q k").cpu().numpy()),
            query_tokens=prefix_tokens,
        )
        return [*layer_patterns, influence_pattern]

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
        """Return an iterator over the text of each new token after a prompt (`attnlab.generate`).

        An empty prompt is a line feed, if the data have one. If a prompt is longer than the model
        reads, its end is used. Of documents that are kept apart, an empty prompt begins one, and
        the text ends where the next one would begin. For a sequence-to-sequence run, the prompt is
        the source sequence.
        Raises RequestError at once, before the first token, for a request that is not possible.
        """
        require_settings(tokens, temperature, top_k, top_p, seed)
        vocabulary_size = len(self.dataset.tokens)
        if top_k is not None and top_k > vocabulary_size:
            raise RequestError(
                f"top_k={top_k} exceeds the {vocabulary_size} tokens of the vocabulary"
            )
        generator = torch.Generator().manual_seed(seed)
        pick = partial(
            draw_token, generator=generator, temperature=temperature, top_k=top_k, top_p=top_p
        )
        if self.objective.begin is not None:
            return self._generate_answer(prompt, tokens, pick)
        if not self.objective.causal or list(self.objective.outputs) != self.dataset.tokens:
            raise RequestError(
                f"{self.record.name} was trained for {self._objective_name}, which names no next "
                "token; generate from a run with objective=autoregressive or seq2seq"
            )
        prompt_tokens = self._encode_prompt(prompt)
        new_tokens = generate(self.model, prompt_tokens, pick, self.precision)
        if self.dataset.boundary is not None:
            boundary = self.dataset.tokens.index(self.dataset.boundary)
            new_tokens = takewhile(lambda token: token != boundary, new_tokens)
        return decode_pieces(islice(new_tokens, tokens), prompt_tokens, self.dataset.decode)

    def search(
        self, prompt: str, beams: int = 5, *, length_penalty: float = 0.0
    ) -> list[Hypothesis]:
        """Return the best answers to a sequence, the best first (`attnlab.generate.search`).

        Raises RequestError for a run that is not sequence-to-sequence.
        """
        require_search(beams, length_penalty)
        if not isinstance(self.objective, Seq2Seq):
            raise RequestError(
                f"{self.record.name} was trained for {self._objective_name}, whose answers have no "
                "end to search for; beams need a run with objective=seq2seq"
            )
        begin, end, max_answer_tokens = self._answer_limits()
        return beam_search(
            *(self.model, self.batch_of_text(prompt).inputs, begin, end, max_answer_tokens),
            beams=beams,
            length_penalty=length_penalty,
            precision=self.precision,
        )

    def _generate_answer(
        self, source: str, max_tokens: int, draw_token: Callable[[Float[Tensor, " token"]], int]
    ) -> Iterator[str]:
        """Return an iterator over the text of each token of the answer to a source sequence."""
        source_tokens = self.batch_of_text(source).inputs
        begin, end, max_answer_tokens = self._answer_limits()
        if self.model.arrangement.encoder:
            prompt_tokens = [begin]
            with torch.no_grad(), self.precision():
                encoder_state = self.model.start(source_tokens)
        else:
            prompt_tokens = [*source_tokens[0].tolist(), begin]
            encoder_state = None

        def draw_answer_token(logits: Float[Tensor, " token"]) -> int:
            # The token that opens an answer does not occur in it.
            return draw_token(logits.index_fill(0, torch.tensor([begin]), -torch.inf))

        answer_tokens = islice(
            generate(self.model, prompt_tokens, draw_answer_token, self.precision, encoder_state),
            min(max_tokens, max_answer_tokens),
        )
        return decode_pieces(
            takewhile(lambda token: token != end, answer_tokens), [], self.dataset.decode
        )

    def _answer_limits(self) -> tuple[int, int, int]:
        """Return the begin and end tokens of an answer, and its maximum number of tokens."""
        objective, dataset = self.objective, self.dataset
        assert objective.begin is not None
        assert dataset.end is not None
        assert dataset.answer_length is not None
        return objective.begin, dataset.tokens.index(dataset.end), dataset.answer_length

    @property
    def _objective_name(self) -> str:
        return type(self.objective).__name__.lower()

    def _encode_prompt(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt; an empty one is the boundary of documents or a line feed.

        Raises RequestError for unknown words, and for an empty prompt where the data have neither.
        """
        if not prompt:
            default_prompt = self.dataset.boundary or "\n"
            if set(self.dataset.tokenize(default_prompt)) <= {*self.dataset.tokens}:
                prompt = default_prompt
        try:
            tokens = self.dataset.encode(prompt)
        except ValueError as error:
            raise RequestError(str(error)) from error
        if not tokens:
            raise RequestError(
                "the prompt is empty, and these data have no line feed to start from; "
                "give at least one token"
            )
        return tokens

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """Return loss and metrics on a whole split. Raises RequestError for an unknown split."""
        if split not in self.dataset.split_names:
            existing_splits = ", ".join(self.dataset.split_names)
            raise RequestError(f"the data have no {split} split; there is {existing_splits}")
        return evaluate_in_full(self.subject, split, self.experiment.metrics)

    def answers(self, logits: Float[Tensor, " output"], count: int = 3) -> list[tuple[str, float]]:
        """Return the likeliest outputs, each with its probability."""
        names = self.objective.outputs
        probabilities, indices = logits.float().softmax(dim=0).topk(min(count, len(logits)))
        return [
            (names[int(index)], float(probability))
            for probability, index in zip(probabilities, indices, strict=True)
        ]

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Enter the context of a forward pass, as in training."""
        trainer = self.config["trainer"]
        with forward_context(trainer["precision"], "cpu", trainer["matmul_precision"]):
            yield


def load(
    run: RunRef,
    *,
    runs_dir: str | Path | None = None,
    config_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> LoadedRun:
    """Load a run, named by its directory or a unique prefix of its name, onto the CPU.

    `runs_dir` is $ATTNLAB_RUNS or "runs" unless given. `overrides` change the dataset
    ("dataset.length=128"), not the weights. A run with parts of your own needs the `config_dir`
    that it was trained with. Raises RequestError if there is no such run or no checkpoint of its
    last step. Warns (RecordWarning) of changes of the code since it was trained, and of damaged
    checkpoints that were skipped.
    """
    record = find_record(run, runs_dir)
    checkpoint, damage_reports = last_checkpoint(record)
    forbidden_overrides = [
        override for override in overrides if not override.startswith("dataset.")
    ]
    if forbidden_overrides:
        raise RequestError(
            f"{', '.join(forbidden_overrides)}: a trained run can only meet other data; "
            "give dataset.KEY=VALUE"
        )
    allowed_parts = NO_USER_TARGETS if config_dir is None else load_user_targets(Path(config_dir))
    _require_allowed_parts(record, allowed_parts)
    _require_no_path(record)
    try:
        config = _rebuild_config(record.identity, allowed_parts)
        original_experiment = Experiment(config)
        experiment = (
            Experiment(change_config(config, overrides)) if overrides else original_experiment
        )
        model = _restore_model(experiment, original_experiment, checkpoint)
    except RequestError:
        raise
    except FAILURES as error:
        explanation = f"{type(error).__name__}: {first_line(error)}"
        raise RecordError(
            f"{record.name} cannot be built from its record ({explanation})"
        ) from error
    loaded_run = LoadedRun(record, checkpoint.step, experiment, model)
    for damage_report in damage_reports:
        warnings.warn(damage_report, RecordWarning, stacklevel=3)
    if loaded_run.changes:
        reasons = "; ".join(loaded_run.changes)
        warning = f"the numbers have changed since {record.name} was trained ({reasons})"
        warnings.warn(warning, RecordWarning, stacklevel=3)
    return loaded_run


REBUILT_KEYS = ("seed", "batch_size", *SECTIONS, "metric")
"""The parts of an identity from which a trained run is rebuilt; the rest is for training."""


def _rebuild_config(identity: Mapping[str, Any], allowed_parts: UserTargets) -> Config:
    """Return the config of an identity."""
    values, _ = strip_revisions(identity)
    values = {key: value for key, value in values.items() if key in REBUILT_KEYS}
    dataset, trainer = values.get("dataset", {}), values.get("trainer", {})
    choices = {"variant": identity.get("variant"), "dataset": dataset.pop("name", None)}
    trainer["accelerator"] = "auto"
    # An older record lacks later knobs, whose defaults have no effect.
    values.setdefault("init", {"_target_": "attnlab.init.base.Init"})
    for section, value in values.items():
        for node in target_nodes(value):
            add_defaults(node, section, allowed_parts)
            for knob, default in node.items():
                if isclass(default):
                    class_path = f"{default.__module__}.{default.__qualname__}"
                    node[knob] = {"_target_": class_path, "_partial_": True}
    return change_config(Config(values, choices, allowed_parts), ())


FAILURES = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, MemoryError),
)
"""The exceptions that parts raise for unexpected arguments."""


def _require_no_path(record: Record) -> None:
    """Raise RecordError for a run with a path of data; a record names data by their SHA-256."""
    for node in target_nodes(record.identity.get("dataset")):
        is_attnlab_class = str(node["_target_"]).startswith("attnlab.")
        if is_attnlab_class and node.get("path") is not None:
            raise RecordError(
                f"{record.name} names {node['path']!r} as its data, and no record of attnlab names "
                "a path; train it again, or take the path out"
            )


def _require_allowed_parts(record: Record, allowed_parts: UserTargets) -> None:
    """Raise RecordError for a run with parts that this call does not allow, naming the remedy.

    It is raised before anything is imported.
    """
    identity = record.identity
    foreign_targets = []
    for section in REBUILT_KEYS:
        for node in target_nodes(identity.get(section)):
            target = node["_target_"]
            if is_allowed(target, section, allowed_parts):
                continue
            if not isinstance(target, str) or target.startswith("attnlab."):
                raise RecordError(
                    f"{record.name}: {target} is none of what {section} is built from"
                )
            foreign_targets.append(target)
    if not foreign_targets:
        return
    summary = next(
        (attempt.summary for attempt in reversed(record.attempts) if attempt.summary), None
    )
    config_dir, hashes = (summary.config_dir, summary.code) if summary else (None, {})
    option = "the --config-dir whose YAMLs name them"
    if config_dir:
        # Words of a record: they are said, and looked up nowhere.
        python = f"config_dir={config_dir!r}"
        option = f"--config-dir {shlex.quote(config_dir)} as in training (in Python, {python})"
    allowed_dir = allowed_parts.config_dir
    not_named = f" (no YAML of {allowed_dir} names them)" if allowed_dir else ""
    described_targets = [
        f"{target} (SHA-256 of its source then: {hashes[target][:16]})"
        if target in hashes
        else target
        for target in dict.fromkeys(foreign_targets)
    ]
    raise RecordError(
        f"{record.name} has parts that are not attnlab's{not_named}; if you trust their code, give "
        f"{option}: {', '.join(described_targets)}"
    )


def _restore_model(
    experiment: Experiment, original_experiment: Experiment, checkpoint: Checkpoint
) -> Model:
    """Build the model of an experiment with the weights of a checkpoint, in evaluation mode.

    `original_experiment` is the one that was trained, which may have other data. Raises
    RequestError if the weights do not fit.
    """
    # The requested dataset first: a text that it names is then found by its content.
    dataset, original_dataset = experiment.dataset, original_experiment.dataset
    if (original_dataset.tokens, original_dataset.classes) != (dataset.tokens, dataset.classes):
        raise RequestError(
            "the run was trained on other tokens or classes than these data have; "
            "change only knobs that leave the vocabulary as it is"
        )
    weights = _read_weights(checkpoint)
    num_layers = experiment.config.values["model"].get("num_layers", 0)
    if num_layers > len(weights):
        raise RecordError(
            f"{num_layers} layers cannot have the {len(weights)} weights of the checkpoint"
        )
    model = experiment.model
    dtype = parameter_type(experiment.config.values["trainer"]["precision"])
    try:
        (model.to(dtype) if dtype else model).load_state_dict(weights)
    except RuntimeError as error:
        if dataset.max_length != original_dataset.max_length:
            raise RequestError(
                f"the run learned positions for {original_dataset.max_length} tokens, and these "
                f"data have {dataset.max_length}; train with model/position=rope, "
                "or use shorter data"
            ) from error
        raise RequestError(
            f"the weights do not fit the code, which has changed since: {error}"
        ) from error
    return model.eval().requires_grad_(False)


def _read_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the model's weights from Lightning's checkpoint; nothing else in it is used."""
    prefix = "model."
    try:
        content = torch.load(io.BytesIO(checkpoint.content), map_location="cpu", weights_only=True)
        weights = {
            name.removeprefix(prefix): weight
            for name, weight in content["state_dict"].items()
            if name.startswith(prefix)
        }
        non_tensors = [name for name, weight in weights.items() if not isinstance(weight, Tensor)]
        if non_tensors:
            raise TypeError(f"{', '.join(non_tensors)}: expected a tensor")
        return weights
    except Exception as error:  # A foreign file may raise anything.
        explanation = f"{type(error).__name__}: {first_line(error)}"
        raise RecordError(
            f"the checkpoint of step {checkpoint.step} holds no weights that can be read "
            f"({explanation})"
        ) from error

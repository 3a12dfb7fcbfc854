"""What is kept of a run: who it is, what it cost, and what is measured of the trained model."""

import hashlib
import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from attnlab.building import import_target
from attnlab.callbacks.stopwatch import Stopwatch
from attnlab.errors import Diverged
from attnlab.evaluation.evaluate import evaluate_in_full
from attnlab.evidence.base import check_finding
from attnlab.experiment import Experiment
from attnlab.fit import FitResult
from attnlab.launch import machine
from attnlab.model.base import active_parameters, parameters
from attnlab.model.cost import flops
from attnlab.run_record.direction import lower_is_better
from attnlab.run_record.finding import Finding
from attnlab.run_record.result import AttemptProvenance, RunResult
from attnlab.signatures import target_nodes


class FinalNumbers(NamedTuple):
    """What is measured of a trained model."""

    metrics: Mapping[str, float]
    """SPLIT/NAME, validation first, and the numbers of evidence as EVIDENCE/KEY."""
    findings: Mapping[str, Finding]


def identify_attempt(experiment: Experiment) -> dict[str, Any]:
    """Return what is run, and by which code."""
    identity = experiment.identity
    return {
        "identity": identity,
        "variant": identity["variant"],
        "dataset": identity["dataset"]["name"],
        "num_layers": identity["model"]["num_layers"],
        "seed": experiment.seed,
        "code": code_hashes(experiment),
        "config_dir": experiment.config.user_targets.config_dir,
        "overrides": experiment.config.overrides,
        "choices": experiment.choices,
        "git": machine.checkout_state(),
        "versions": machine.package_versions(),
    }


def code_hashes(experiment: Experiment) -> dict[str, str]:
    """Return the SHA-256 of the source file of each class that the config names."""
    names = sorted({node["_target_"] for node in target_nodes(experiment.identity)})
    hashes = {}
    for name in names:
        # Of a class that was made in a notebook, or compiled, there is no source.
        with suppress(TypeError, OSError):
            source_file = inspect.getsourcefile(inspect.unwrap(import_target(name)))
            hashes[name] = hashlib.sha256(Path(source_file or "").read_bytes()).hexdigest()
    return hashes


def run_notes(experiment: Experiment) -> list[str]:
    """Return what a reader of the result must know: a line for each thing."""
    config, max_steps = experiment.config, experiment.settings.max_steps
    notes = [f"{config.choices['dataset']}: {note}" for note in experiment.dataset.notes]
    warmup_steps = config.values["schedule"].get("warmup_steps", 0)
    if warmup_steps > max_steps:
        notes.append(
            f"schedule.warmup_steps={warmup_steps} is more than trainer.max_steps={max_steps}: the "
            "learning rate does not reach its peak"
        )
    return notes


def flops_per_token(experiment: Experiment) -> float:
    """Return the FLOPs of a forward pass, at the training length, of the experts that are used."""
    example = experiment.example
    return flops(experiment.model, *example.model_inputs) / example.num_tokens


def tokens_per_step(experiment: Experiment) -> int:
    """Return the number of training tokens of an optimizer step, including padding."""
    example = experiment.example
    batches_per_step = experiment.settings.accumulate_grad_batches
    tokens_per_example = example.num_tokens // len(example.inputs)
    return experiment.batch_size * batches_per_step * tokens_per_example


def measure_trained(experiment: Experiment) -> FinalNumbers:
    """Evaluate the trained model on its held-back splits, and ask each evidence about it."""
    subject = experiment.subject
    metrics = {
        f"{split}/{name}": value
        for split in reversed(experiment.dataset.split_names)
        if split != "train"
        for name, value in evaluate_in_full(subject, split, experiment.metrics).items()
    }
    findings: dict[str, Finding] = {}
    for name, evidence in experiment.config.build_parts("evidence").items():
        findings[name] = check_finding(name, evidence(subject).measure(), experiment.model)
        metrics |= {f"{name}/{key}": value for key, value in findings[name].scalars.items()}
    return FinalNumbers(metrics, findings)


def keep_finite_numbers(
    numbers: FinalNumbers, headline: str, step: int
) -> tuple[FinalNumbers, str]:
    """Return the numbers that are finite, and a warning that names the other metrics.

    Raises Diverged where the headline is none: there is nothing to compare such a run by.
    """
    metrics = numbers.metrics
    if headline in metrics and not isfinite(metrics[headline]):
        raise Diverged(step, f"after the last step, {headline} is {metrics[headline]}")
    finite_metrics = {name: value for name, value in metrics.items() if isfinite(value)}
    dropped_metrics = [
        f"{name} ({value})" for name, value in metrics.items() if name not in finite_metrics
    ]
    warning = ""
    if dropped_metrics:
        warning = f"left out, since no finite number: {', '.join(dropped_metrics)}"
    findings = {name: _drop_infinite_numbers(finding) for name, finding in numbers.findings.items()}
    return FinalNumbers(finite_metrics, findings), warning


def _drop_infinite_numbers(finding: Finding) -> Finding:
    """Return a finding without the heads whose weight is no finite number, and such numbers."""
    heads = {
        name: replace(
            head,
            without={
                ablation: accuracy
                for ablation, accuracy in head.without.items()
                if isfinite(accuracy)
            },
        )
        for name, head in finding.heads.items()
        if isfinite(head.weight)
    }
    return replace(finding, heads=heads)


def build_run_result(
    experiment: Experiment,
    provenance: AttemptProvenance,
    fitted: FitResult,
    final_numbers: FinalNumbers,
    flops_per_token: float,
    stopwatch: Stopwatch,
) -> RunResult:
    """Build what is kept of a finished run, which `stopwatch` has timed."""
    model, dataset = experiment.model, experiment.dataset
    example = experiment.example
    step_tokens = tokens_per_step(experiment)
    return RunResult(
        **vars(provenance),
        steps=fitted.steps,
        stopped_early=fitted.stopped_early,
        metrics=final_numbers.metrics,
        findings=final_numbers.findings,
        flops_per_token=flops_per_token,
        device=machine.device_name(fitted.device),
        peak_memory_bytes=machine.peak_memory(fitted.device),
        seconds=stopwatch.seconds,
        seconds_before=stopwatch.seconds_before,
        network_depth=model.network_depth,
        data_hash=dataset.data_hash,
        tokens=fitted.steps * step_tokens,
        budget_tokens=experiment.settings.max_steps * step_tokens,
        parameters=parameters(model),
        active_parameters=active_parameters(model),
        state_size=model.state_size(example.inputs.shape[1]),
        headline=experiment.headline,
        lower_is_better=tuple(experiment.lower_is_better),
        bounds=experiment.bounds,
        higher_is_better=not lower_is_better(dataset.headline, experiment.lower_is_better),
    )

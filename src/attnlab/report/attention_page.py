"""The served page of a run's recorded attention: every head, at every recorded step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from attnlab.analysis.findings import read_findings
from attnlab.analysis.recorded_patterns import RecordedLayer, RecordedPatterns, RecordedProbe
from attnlab.errors import RequestError
from attnlab.figures.attention_panels import View, role_colours
from attnlab.figures.base import visible_text
from attnlab.layers import AttentionLayer, Axes
from attnlab.printable import escape_controls, one_line
from attnlab.report.frame import ServedFrame, render_page
from attnlab.report.page import CAUTION
from attnlab.report.view import PageView
from attnlab.run_record.finding import Finding, NamedHead
from attnlab.run_record.result import RunResult

VIEWS = {"tokens": "tokens and lines", "matrix": "matrix"}
WEIGHTS = {"raw": "as recorded", "value": "value-weighted", "rollout": "rollout"}
AGAINST = {"": "nothing", "run": "another run", "step": "another step", "head": "another head"}
NO_VALUE_NORMS = (
    "Not recorded: the record has no norms of values. They can be measured here for a finished run."
)


@dataclass(frozen=True)
class AttentionView(PageView):
    """What of a run's attention is shown, as the address of the page says it.

    What is empty is chosen by the page.
    """

    PATH: ClassVar[str] = "/attention"
    run: str = ""
    probe: str = ""
    step: str = ""
    layer: str = ""
    """A key: `1` of attention, `m0` of a layer that mixes without it, `answer` for influence."""
    head: str = ""
    query: str = ""
    """The row of the token that asks."""
    key: str = ""
    """The position of the token whose edge is cut; empty for the one with the largest weight."""
    view: str = "tokens"
    weights: str = "raw"
    against: str = ""
    """What stands beside: another run, step or head."""
    other: str = ""
    """Its name, its step, or its layer and head as in `L1H2`."""
    sort: str = ""
    """The measure by which heads are sorted; empty for their order in the model."""


@dataclass(frozen=True)
class OtherRun:
    """The run that the shown one is compared with: what of it has the same axes."""

    run: str
    steps: Sequence[int]
    fault_by_layer: Mapping[str, str]
    """Why a layer cannot be compared; empty for one that can."""


@dataclass(frozen=True)
class AttentionContent:
    """What the page of a run's attention shows."""

    run: str
    state: str
    probe: RecordedProbe
    probes: Sequence[str]
    runs: Sequence[str]
    """The runs that recorded patterns, of which one may be compared."""
    measures: Sequence[str]
    """The recorded measures of heads."""
    other: OtherRun | None = None
    rollout_faults: Mapping[str, str] = field(default_factory=dict)
    """Why there is no rollout up to a layer, by its key; empty for a layer that has one."""
    fault_of_measuring: str = ""
    """Why nothing can be measured; empty where it can."""
    values_at: int | None = None
    """The step of which norms of values were measured; None where they were not."""
    result: RunResult | None = None


def other_run(name: str, probe: RecordedProbe, patterns: RecordedPatterns) -> OtherRun:
    """Return what of another run's patterns can stand beside a probe of this one.

    Raises RequestError where the other run has no such probe.
    """
    of_other = patterns.probe(probe.name)
    layer_by_key = {layer.key: layer for layer in of_other.layers}
    faults = {}
    for layer in probe.layers:
        counterpart = layer_by_key.get(layer.key)
        if counterpart is None:
            faults[layer.key] = f"the other run recorded no {layer.name}"
        elif any(
            list(getattr(counterpart, name)) != list(getattr(layer, name))
            for name in ("tokens", "queries", "query_at")
        ):
            faults[layer.key] = "the other run recorded other tokens"
        else:
            heads = {*layer.numbers} - {*counterpart.numbers}
            faults[layer.key] = (
                f"the other run has no head {', '.join(map(str, sorted(heads)))} there"
                if heads == {*layer.numbers}
                else ""
            )
    return OtherRun(name, of_other.steps, faults)


def rollout_faults(patterns: RecordedPatterns, probe: RecordedProbe) -> dict[str, str]:
    """Return why the record has no rollout up to each layer, or an empty text."""
    faults = {}
    for layer in probe.layers:
        try:
            patterns.rollout_layers(probe, layer)
            faults[layer.key] = ""
        except RequestError as error:
            faults[layer.key] = str(error)
    return faults


def attention_page(
    content: AttentionContent,
    view: AttentionView,
    served: ServedFrame,
    notice: str | None = None,
) -> str:
    """Return the page of a run's attention."""
    colours = role_colours(
        View("", layer.tokens, 0, np.zeros(0), {i: r for i, r in enumerate(layer.roles) if r})
        for layer in content.probe.layers
    )
    return render_page(
        "viewer.html",
        f"Attention of {content.run}",
        "viewer",
        _page_data(content, view, colours),
        has_charts=False,
        served=served,
        notice=notice,
        view=view,
        content=content,
        labels={"view": VIEWS, "weights": WEIGHTS, "against": AGAINST},
        roles=colours,
        caution=CAUTION,
        facts=_evidence_facts(content.result),
    )


def empty_attention_page(run: str, served: ServedFrame, view: AttentionView) -> str:
    """Return the page of a run that recorded no patterns."""
    return render_page(
        "viewer.html",
        f"Attention of {run}",
        "viewer",
        {},
        has_charts=False,
        served=served,
        view=view,
        content=None,
    )


def _page_data(
    content: AttentionContent, view: AttentionView, colours: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the page's script reads: the axes of every layer, and no weights."""
    axes: list[dict[str, Any]] = []
    layers = []
    for layer in content.probe.layers:
        layer_axes = _axes(layer)
        if layer_axes not in axes:
            axes.append(layer_axes)
        layers.append(
            {
                "key": layer.key,
                "name": layer.name,
                "letter": {"attention": "L", "influence": ""}.get(layer.kind, "M"),
                "kind": layer.kind,
                "heads": list(layer.numbers),
                "axes": axes.index(layer_axes),
                "rollout": content.rollout_faults.get(layer.key, ""),
                "cut": _fault_of_cutting(layer),
                "other": content.other.fault_by_layer[layer.key] if content.other else "",
            }
        )
    return {
        "run": content.run,
        "probe": content.probe.name,
        "steps": list(content.probe.steps),
        "layers": layers,
        "axes": axes,
        "roles": dict(colours),
        "first": content.probe.first_choice.key,
        "view": vars(view),
        "measures": list(content.measures),
        "other": content.other and {"run": content.other.run, "steps": list(content.other.steps)},
        "fault": content.fault_of_measuring,
        "noValues": NO_VALUE_NORMS,
        "valuesAt": content.values_at,
        "named": _named_heads(content.result),
    }


def _axes(layer: RecordedLayer) -> dict[str, Any]:
    return {
        "keys": [_visible(token) for token in layer.tokens],
        "queries": [_visible(token) for token in layer.queries],
        "at": list(layer.query_at),
        "answer": layer.answer_row,
        "roles": list(layer.roles),
        "square": layer.is_square,
        "within": not layer.is_crossing,
    }


def _visible(token: str) -> str:
    """Return a token as text that shows white space, and that no direction mark can turn."""
    return visible_text(escape_controls(token))


def _fault_of_cutting(layer: RecordedLayer) -> str:
    """Return why no edge or head of a layer can be cut; empty where it can."""
    if not isinstance(layer.layer, AttentionLayer):
        return f"{layer.name} does not attend: it has no head to take out"
    if layer.layer.number is None:
        return "this record does not number its layers"
    if layer.layer.axes != Axes():
        return "an edge between two sequences cannot be cut from here"
    return ""


def _named_heads(result: RunResult | None) -> dict[str, list[str]]:
    """Return what the run's evidence says of each head that it names, by L1H2."""
    texts: dict[str, list[str]] = {}
    for finding in read_findings(result).values():
        for named_head in finding.heads.values():
            texts.setdefault(str(named_head.head), []).append(_describe(finding, named_head))
    return texts


def _describe(finding: Finding, named_head: NamedHead) -> str:
    without = [
        f"{one_line(ablation)}: {value:.3g} right" for ablation, value in named_head.without.items()
    ]
    parts = [f"{one_line(named_head.role)}, with weight {named_head.weight:.3g}", *without]
    return "; ".join(parts)


def _evidence_facts(result: RunResult | None) -> list[tuple[str, str]]:
    """Return the numbers of the run's evidence that stand beside pictures, with their labels."""
    facts = []
    for finding in read_findings(result).values():
        for label in finding.presentation.labels:
            if label.number in finding.scalars:
                facts.append((one_line(label.text), f"{finding.scalars[label.number]:.3g}"))
    return facts

"""The page of a run's recorded attention, its weights step by step, and measuring on request."""

import base64
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from attnlab.analysis.recorded_patterns import (
    RecordedLayer,
    RecordedPatterns,
    RecordedProbe,
    has_patterns,
    shrink,
    weight_codes,
)
from attnlab.analysis.run_list import ListedRun
from attnlab.dashboard.answers import html_answer, json_answer, read_body, read_view
from attnlab.dashboard.context import Context
from attnlab.dashboard.measurement import KINDS, Measurement, require_small
from attnlab.dashboard.worker import Worker
from attnlab.errors import RequestError
from attnlab.report.attention_page import (
    NO_VALUE_NORMS,
    WEIGHTS,
    AttentionContent,
    AttentionView,
    OtherRun,
    attention_page,
    empty_attention_page,
    other_run,
    rollout_faults,
)
from attnlab.run_record.head_scores import Scores, load_head_scores
from attnlab.run_record.record import Record, Snapshot

MOST_OPEN_RUNS = 4
"""The number of runs whose patterns stay in memory."""
MOST_SUMMARIES = 48
"""The number of steps whose small pictures stay in memory."""
SMALL = 48
"""The most rows and columns of a head's small picture."""
MOST_BODY = 100_000


@dataclass
class OpenRun:
    """The patterns and the measures of heads of a run, read once."""

    record: Record
    signature: tuple[Any, ...]
    small_pictures: OrderedDict[tuple[str, int], Any] = field(default_factory=OrderedDict)

    @cached_property
    def patterns(self) -> RecordedPatterns:
        """The recorded patterns."""
        return RecordedPatterns(self.record)

    @cached_property
    def scores(self) -> Scores:
        """The recorded measures of heads."""
        return load_head_scores(self.record)


class AttentionAnswers:
    """Answers what is asked about the recorded attention of a run."""

    def __init__(self, context: Context, worker: Worker | None = None) -> None:
        self._context = context
        self._worker = worker or Worker()
        self._open_runs: OrderedDict[Path, OpenRun] = OrderedDict()

    @property
    def routes(self) -> list[Route]:
        """The addresses that are answered."""
        endpoint = self._context.endpoint
        return [
            Route("/attention", endpoint(self.page)),
            Route("/api/pattern", endpoint(self.pattern)),
            Route("/api/recorded-steps", endpoint(self.steps)),
            Route("/api/heads-at", endpoint(self.small_pictures)),
            Route("/api/measurement", endpoint(self.measurement)),
            Route("/measure", self.measure, methods=["POST"]),
        ]

    def page(self, request: Request) -> Response:
        """Return the page; what it cannot show of the address is said on it, with status 422."""
        view = read_view(AttentionView, request.query_params)
        run = self._context.require_run(view.run)
        open_run = self._open(run.record)
        frame = self._context.frame("")
        if not open_run.patterns.probe_names:
            return html_answer(empty_attention_page(run.name, frame, view))
        notices = []
        probe_name = view.probe or open_run.patterns.probe_names[0]
        try:
            probe = open_run.patterns.probe(probe_name)
        except RequestError as error:
            notices.append(str(error))
            probe = open_run.patterns.probe(open_run.patterns.probe_names[0])
        try:
            _check(view, probe)
        except RequestError as error:
            notices.append(str(error))
        other = None
        if view.against == "run" and view.other:
            try:
                other = self._other(view.other, probe)
            except RequestError as error:
                notices.append(str(error))
        content = AttentionContent(
            run=run.name,
            state=run.state,
            probe=probe,
            probes=open_run.patterns.probe_names,
            runs=[
                listed.name
                for listed in self._context.store.runs(look=False)
                if listed is not run and has_patterns(listed.record)
            ],
            measures=sorted({name for of_layer in open_run.scores.values() for name in of_layer}),
            other=other,
            rollout_faults=rollout_faults(open_run.patterns, probe),
            fault_of_measuring=_fault_of_measuring(run),
            values_at=self._values(run.record, probe, probe.first_choice).get("step"),
            result=run.result,
        )
        answer = html_answer(attention_page(content, view, frame, "; ".join(notices) or None))
        answer.status_code = 422 if notices else 200
        return answer

    def pattern(self, request: Request) -> Response:
        """Return the weights of a layer at a step as the record's bytes; of one head, if named.

        A weight w is the byte round(255 sqrt(w)). With `weights=rollout` or `value`, the bytes are
        of these instead.
        """
        query = request.query_params
        open_run, probe, step, layer = self._place(query)
        weights = query.get("weights", "raw")
        if weights not in WEIGHTS:
            raise RequestError(f"weights {weights[:40]!r}: expected one of {', '.join(WEIGHTS)}")
        if weights == "rollout":
            heads: list[int | str] = ["mean"]
            codes = weight_codes(open_run.patterns.rollout(probe, step, layer))[None]
        else:
            heads = [*layer.numbers]
            if weights == "raw":
                codes = open_run.patterns.pattern(probe.name, step, layer.source).codes
            else:
                codes = self._value_codes(open_run.record, probe, step, layer)
            if query.get("head"):
                index = layer.head_index(_number("head", query["head"]))
                heads, codes = [heads[index]], codes[index : index + 1]
        return json_answer(
            {
                "step": step,
                "heads": heads,
                "queries": codes.shape[1],
                "keys": codes.shape[2],
                "codes": _text_of(codes),
            }
        )

    def steps(self, request: Request) -> Response:
        """Return the steps of a probe, of which a run that trains has more and more."""
        _, probe, _, _ = self._place(request.query_params)
        return json_answer(list(probe.steps))

    def small_pictures(self, request: Request) -> Response:
        """Return a small picture of every head at a step, and what was measured of it until then.

        A pixel is the largest weight of its block, as a byte.
        """
        query = request.query_params
        open_run, probe, step, _ = self._place(query)
        known, place = open_run.small_pictures, (probe.name, step)
        if place not in known:
            known[place] = self._draw_small(open_run, probe, step)
            while len(known) > MOST_SUMMARIES:
                known.popitem(last=False)
        return json_answer(known[place])

    def measurement(self, request: Request) -> Response:
        """Return how far a measurement is, by the number of its job."""
        job = self._worker.find(_number("job", request.query_params.get("job", "")))
        return json_answer(_without_codes(job.to_json()))

    async def measure(self, request: Request) -> Response:
        """Start to measure what cutting an edge or a head does, or the norms of values."""
        body = await read_body(request, MOST_BODY)
        if body is None:
            return PlainTextResponse("too long\n", 413)
        return await run_in_threadpool(self._measure, body)

    def _measure(self, body: bytes) -> Response:
        try:
            asked_for = json.loads(body)
            kind = asked_for["kind"]
            texts = {name: str(asked_for.get(name, "")) for name in ("run", "probe", "layer")}
            numbers = {name: asked_for.get(name) for name in ("head", "query", "key")}
        except (ValueError, TypeError, KeyError, AttributeError):
            return PlainTextResponse("expected kind, run, probe and layer as JSON\n", 400)
        are_numbers = all(n is None or (type(n) is int and n >= 0) for n in numbers.values())
        if kind not in KINDS or not are_numbers:
            return PlainTextResponse(f"expected one of {', '.join(KINDS)}, and numbers\n", 400)
        with self._context.lock:
            try:
                measurement = self._measurement(kind, **texts, **numbers)
                job = self._worker.start(
                    measurement.cache_key, measurement.title, measurement.measure
                )
            except RequestError as error:
                return PlainTextResponse(f"{error}\n", 422)
        return json_answer(_without_codes(job.to_json()))

    def _measurement(
        self,
        kind: str,
        run: str,
        probe: str,
        layer: str,
        head: int | None,
        query: int | None,
        key: int | None,
    ) -> Measurement:
        """Return what is to be measured. Raises RequestError for what cannot be."""
        listed = self._context.require_run(run)
        if fault := _fault_of_measuring(listed):
            raise RequestError(fault)
        recorded_probe = self._open(listed.record).patterns.probe(probe)
        recorded = recorded_probe.layer(layer)
        if recorded.kind != "attention" or recorded.is_crossing or not recorded.key.isdecimal():
            raise RequestError(f"{recorded.name}: only attention within the text can be cut")
        if head is not None:
            recorded.head_index(head)
        elif kind == "head":
            raise RequestError("head: expected the number of the head that is taken out")
        if kind == "edge" and not (
            query is not None and key is not None and max(query, key) < len(recorded.tokens)
        ):
            raise RequestError(
                f"edge {query} to {key}: expected positions below {len(recorded.tokens)}"
            )
        if kind == "values":
            require_small(recorded_probe.layers)
        path = listed.path.resolve()
        return Measurement(kind, path, recorded, probe, head, query or 0, key or 0)

    def _draw_small(self, open_run: OpenRun, probe: RecordedProbe, step: int) -> dict[str, Any]:
        layers = []
        for layer in probe.layers:
            codes = open_run.patterns.pattern(probe.name, step, layer.source).codes
            small = shrink(codes, SMALL)
            layers.append(
                {
                    "key": layer.key,
                    "rows": small.shape[1],
                    "columns": small.shape[2],
                    "codes": _text_of(small),
                    "measures": _measures(open_run.scores, layer, step),
                }
            )
        return {"step": step, "layers": layers}

    def _value_codes(
        self, record: Record, probe: RecordedProbe, step: int, layer: RecordedLayer
    ) -> np.ndarray:
        """Return the value-weighted attention of a layer, as measured on the last checkpoint."""
        answer = self._values(record, probe, layer)
        if not answer:
            raise RequestError(NO_VALUE_NORMS)
        if step != answer["step"]:
            raise RequestError(
                f"step {step}: values were measured on the last checkpoint, of step "
                f"{answer['step']}"
            )
        if layer.key not in answer["codes"]:
            raise RequestError(f"{layer.name}: its heads have no values of their own width")
        return answer["codes"][layer.key][list(layer.numbers)]

    def _values(
        self, record: Record, probe: RecordedProbe, layer: RecordedLayer
    ) -> Mapping[str, Any]:
        """Return the norms of values that were measured on a probe; empty where none were."""
        if layer.kind != "attention" or not (record.path / "run.json").exists():
            return {}
        path = record.path.resolve()
        measurement = Measurement("values", path, layer, probe.name, None, 0, 0)
        return self._worker.answer(measurement.cache_key) or {}

    def _place(self, query: QueryParams) -> tuple[OpenRun, RecordedProbe, int, RecordedLayer]:
        """Return the run, probe, step and layer that an address asks for."""
        run = self._context.require_run(query.get("run", ""))
        open_run = self._open(run.record)
        names = open_run.patterns.probe_names
        if not names:
            raise RequestError(f"{run.name} recorded no patterns")
        probe = open_run.patterns.probe(query.get("probe") or names[0])
        step = probe.steps[-1]
        if query.get("step"):
            step = probe.require_step(_number("step", query["step"]))
        layer = probe.layer(query["layer"]) if query.get("layer") else probe.first_choice
        return open_run, probe, step, layer

    def _other(self, name: str, probe: RecordedProbe) -> OtherRun:
        run = self._context.require_run(name)
        return other_run(run.name, probe, self._open(run.record).patterns)

    def _open(self, record: Record) -> OpenRun:
        """Return a run's patterns, read again where their files changed."""
        signature = tuple(
            (str(path), path.stat().st_mtime_ns, path.stat().st_size)
            for table in ("patterns", "heads")
            for path in sorted(record.path.glob(f"attempts/*/{table}.arrow"))
        )
        open_run = self._open_runs.get(record.path)
        if open_run is None or open_run.signature != signature:
            open_run = self._open_runs[record.path] = OpenRun(Snapshot(record.path), signature)
        self._open_runs.move_to_end(record.path)
        while len(self._open_runs) > MOST_OPEN_RUNS:
            self._open_runs.popitem(last=False)
        return open_run


def _check(view: AttentionView, probe: RecordedProbe) -> None:
    """Raise RequestError where a view names a step, layer, head or query that there is not."""
    if view.step:
        probe.require_step(_number("step", view.step))
    layer = probe.layer(view.layer) if view.layer else probe.first_choice
    if view.head:
        layer.head_index(_number("head", view.head))
    for name, size in (("query", len(layer.queries)), ("key", len(layer.tokens))):
        text = getattr(view, name)
        if text and _number(name, text) >= size:
            raise RequestError(f"{name} {text}: expected a number below {size}")
    if view.weights not in WEIGHTS:
        raise RequestError(f"weights {view.weights[:40]!r}: expected one of {', '.join(WEIGHTS)}")


def _fault_of_measuring(run: ListedRun) -> str:
    """Return why nothing can be measured of a run; empty where it can."""
    if run.result is None:
        return "It is not finished: what cutting does is measured on a finished run."
    checkpoints = run.path / "attempts" / str(run.result.attempt) / "checkpoints"
    if not any(checkpoints.glob("*.ckpt")):
        return "Its checkpoint is not on this machine, so nothing can be measured."
    return ""


def _measures(scores: Scores, layer: RecordedLayer, step: int) -> dict[str, list[float | None]]:
    """Return the measures of a layer's recorded heads as last measured until a step."""
    values_by_measure: dict[str, list[float | None]] = {}
    of_layer: Any = next(
        (measures for scored, measures in scores.items() if scored == layer.layer), {}
    )
    for name, history in of_layer.items():
        rows = np.flatnonzero(history.steps <= step)
        if len(rows):
            values = history.values[rows[-1]]
            values_by_measure[name] = [
                float(values[head]) if head < len(values) and np.isfinite(values[head]) else None
                for head in layer.numbers
            ]
    return values_by_measure


def _number(name: str, text: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) <= 12):
        raise RequestError(f"{name} {text[:40]!r}: expected a number")
    return int(text)


def _text_of(codes: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(codes).tobytes()).decode()


def _without_codes(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job without the weights that it measured, which are asked for by layer."""
    answer = job["answer"]
    return {**job, "answer": {k: v for k, v in (answer or {}).items() if k != "codes"}}

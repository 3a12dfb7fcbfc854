"""What a page may ask to be measured of a finished run: an edge cut, a head taken out, values."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.analysis.recorded_patterns import RecordedLayer, weight_codes
from attnlab.dashboard.worker import CommandError, RunCommand
from attnlab.errors import RequestError

KINDS = ("edge", "head", "values")
MOST_NUMBERS = 1_500_000
"""The most weights of all heads that are measured on request, as they come as JSON."""


@dataclass(frozen=True)
class Measurement:
    """Something that `attnlab ablate` or `attnlab attend` measures on the last checkpoint."""

    kind: str
    run: Path
    layer: RecordedLayer
    probe: str
    head: int | None
    """None for all heads of all layers, in which an edge is cut."""
    query: int
    """The position of the query, and of the key, in the text."""
    key: int

    @property
    def cache_key(self) -> Hashable:
        """What its answer is kept under."""
        changed = (self.run / "run.json").stat().st_mtime_ns
        parts = {
            "edge": (self.probe, self.layer.key, self.head, self.query, self.key),
            "head": (self.layer.key, self.head),
            "values": (self.probe,),
        }[self.kind]
        return str(self.run), changed, self.kind, *parts

    @property
    def title(self) -> str:
        """What it does, as in `the edge 8 to 1 cut in L1H2`."""
        place = "all heads" if self.head is None else f"L{self.layer.key}H{self.head}"
        return {
            "edge": f"the edge {self.query} to {self.key} cut in {place}",
            "head": f"{place} taken out",
            "values": "norms of values",
        }[self.kind]

    def measure(self, run_command: RunCommand) -> Any:
        """Return what is measured. Raises RequestError where it cannot be."""
        if self.kind == "head":
            report = run_command(["ablate", *self.heads, "--format=json", "--", str(self.run)])
            (ablated,) = report["ablated"]
            return {
                **{name: report[name] for name in ("metric", "split", "step", "method")},
                "before": report["intact"],
                "after": ablated["value"],
            }
        return self._try_texts(_cut_edge if self.kind == "edge" else _norms, run_command)

    @property
    def heads(self) -> list[str]:
        """The option that restricts a command to the head."""
        return [] if self.head is None else [f"--heads=L{self.layer.key}H{self.head}"]

    def _try_texts(
        self, measure: Callable[["Measurement", str, RunCommand], Any], run_command: RunCommand
    ) -> Any:
        """Return what is measured on the text that has the probe's tokens."""
        fault: CommandError | None = None
        for text in texts_of(self.probe, self.layer.tokens):
            try:
                answer = measure(self, text, run_command)
            except CommandError as error:
                fault = error
                continue
            if answer is not None:
                return answer
        if fault is not None:
            raise fault
        raise RequestError(
            "no text was found that has the tokens of this probe; `attnlab ablate RUN --text TEXT "
            "--edge QUERY:KEY` takes a text of yours"
        )


def _cut_edge(measurement: Measurement, text: str, run_command: RunCommand) -> Any:
    """Return the answers with an edge and without it; None for other tokens than the probe's."""
    edge = f"--edge={measurement.query}:{measurement.key}"
    options = [edge, f"--text={text}", *measurement.heads, "--format=json"]
    report = run_command(["ablate", *options, "--", str(measurement.run)])
    if report["tokens"] != list(measurement.layer.tokens):
        return None
    if (report["query"], report["key"]) != (measurement.query, measurement.key):
        raise RequestError(
            "the tokens of this probe are numbers, so an edge cannot be named by positions"
        )
    return {
        "answers": report["answers"],
        "step": report["step"],
        "heads": len(report["heads"]),
    }


def _norms(measurement: Measurement, text: str, run_command: RunCommand) -> Any:
    """Return the value-weighted attention of each layer as codes; None for other tokens."""
    arguments = ["attend", "--view=norms", "--format=json", "--", str(measurement.run), text]
    report = run_command(arguments)
    if report["tokens"] != list(measurement.layer.tokens):
        return None
    return {
        "step": report["step"],
        "codes": {
            str(attention_map["layer"]): np.stack(
                [weight_codes(np.array(head)) for head in attention_map["weights"]]
            )
            for attention_map in report["maps"]
        },
    }


def texts_of(probe: str, tokens: Sequence[str]) -> list[str]:
    """Return texts that may have given a probe its tokens, the likeliest first.

    The record has tokens, and only the run's tokenizer can tell how they were joined.
    """
    joined = [" ".join(tokens), "".join(tokens)]
    if all(len(token) <= 1 for token in tokens) or any(" " in token for token in tokens):
        joined.reverse()
    # A text of the user's own is the name of its probe.
    is_own_text = len(probe) > len("".join(tokens)) // 2 and " " in probe
    return list(dict.fromkeys([probe, *joined] if is_own_text else joined))


def require_small(layers: Sequence[RecordedLayer]) -> None:
    """Raise RequestError where a probe is too long for its values to be measured here."""
    num_numbers = sum(
        len(layer.numbers) * len(layer.tokens) ** 2 for layer in layers if layer.kind == "attention"
    )
    if num_numbers > MOST_NUMBERS:
        raise RequestError(
            f"value-weighted: {num_numbers:,} weights are too many to measure from this page; "
            "`attnlab attend RUN TEXT --view norms` draws them"
        )

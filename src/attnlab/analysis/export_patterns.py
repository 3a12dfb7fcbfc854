"""Read the patterns of a record, and export them to the formats of other programs.

`to_bertviz` returns the arguments of `head_view` and `model_view` (BertViz 1.4.1), `to_circuitsvis`
those of `attention_heads` for each layer (CircuitsVis 1.43.3), of which the older
`attention_patterns` takes "tokens" and "attention".
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attnlab.errors import RequestError
from attnlab.layers import Axes
from attnlab.run_record.pattern_table import Pattern, load_patterns, probe_names
from attnlab.run_record.run_ref import RunRef, find_record

KINDS = ("encoder_attention", "decoder_attention", "cross_attention")
"""The kinds of attention that BertViz shows of an encoder-decoder model."""
NO_ATTENTION = "no attention"


def patterns(
    run: RunRef,
    step: int | None = None,
    probe: str | None = None,
    runs_dir: str | Path | None = None,
) -> list[Pattern]:
    """Read the recorded patterns of a run in order of steps, or only those of a step or a probe.

    `run` is a directory, a unique prefix of a name in `runs_dir` (default: $ATTNLAB_RUNS or
    "runs"), or an entry of a list of runs. The last pattern of each probe and step is the influence
    of the tokens on the answer, which has no layer. Raises RequestError where the run recorded no
    such pattern.
    """
    record = find_record(run, runs_dir)
    selected_patterns = load_patterns(record, step, probe)
    if not selected_patterns:
        steps = {pattern.step for pattern in load_patterns(record, probe=probe)}
        raise RequestError(
            f"{record.name} recorded no patterns"
            f"{'' if step is None else f' after step {step}'}"
            f"{'' if probe is None else f' of {probe!r}'}; there are steps "
            f"{_list_first(sorted(steps))} and probes {_list_first(probe_names(record))}"
        )
    return selected_patterns


def to_bertviz(patterns: Sequence[Pattern]) -> dict[str, Any]:
    """Return BertViz's arguments: {"attention", "tokens"}, or those for an encoder and a decoder.

    Attention is a list of arrays (1, head, query, key), one for each layer; BertViz takes tensors:
    `[torch.from_numpy(layer) for layer in ...]`. It numbers the layers and heads from 0 in each
    kind, whatever their numbers are in the model.

    Maps that are no attention (mixing matrices, influence) and maps from or to latents are left
    out, because BertViz cannot show them. BertViz shows equally many layers and heads of encoder,
    decoder and cross-attention: where the kinds differ in size, those with the most maps are
    returned. To see another kind, pass only its patterns, as in
    `[p for p in patterns if p.query_tokens is not None]`. `left_out_of_bertviz` names the maps
    that are left out, and `to_npz` writes all maps.

    Raises ValueError for patterns of several passes, for none that fit, and for layers of one kind
    with unequal heads, which cannot be stacked.
    """
    patterns_by_kind, _ = _split_for_bertviz(patterns)
    if not patterns_by_kind:
        raise ValueError("no attention between tokens of one pass is there for BertViz to show")
    arguments: dict[str, Any] = {
        kind: _stackable_arrays(kind_patterns) for kind, kind_patterns in patterns_by_kind.items()
    }
    if "attention" in patterns_by_kind:
        return arguments | {"tokens": list(patterns_by_kind["attention"][0].tokens)}
    encoder, decoder, cross = (patterns_by_kind.get(kind, []) for kind in KINDS)
    if encoder or cross:
        arguments["encoder_tokens"] = list([*encoder, *cross][0].tokens)
    if decoder or cross:
        arguments["decoder_tokens"] = list([*decoder, *cross][0].queries)
    return arguments


def left_out_of_bertviz(patterns: Sequence[Pattern]) -> dict[str, str]:
    """Return the sources that `to_bertviz` leaves out, each with the reason."""
    _, reason_by_source = _split_for_bertviz(patterns)
    return reason_by_source


def to_circuitsvis(patterns: Sequence[Pattern]) -> list[dict[str, Any]]:
    """Return the arguments of CircuitsVis' `attention_heads` for each layer.

    They are {"tokens", "attention" (head, query, key), "attention_head_names" (the layer, and the
    number of the head in it), "mask_upper_tri"}. The last is False: by default, CircuitsVis greys
    out the keys after a query, even where the model sees them.

    Maps of one sequence that reads another are left out, because CircuitsVis has one list of tokens
    for both axes, and so are maps that are no attention ("*.mixing",
    `run_record.pattern_table.INFLUENCE`); `left_out_of_circuitsvis` names them, and `to_npz` writes
    all.

    Raises ValueError for patterns of several passes and for none that fit.
    """
    left_out = left_out_of_circuitsvis(patterns)
    layer_arguments = [
        {
            "tokens": list(p.tokens),
            "attention": np.asarray(p.weights),
            "attention_head_names": [f"{p.attention.path}, head {number}" for number in p.numbers],
            "mask_upper_tri": False,
        }
        for p in patterns
        if p.source not in left_out and p.attention is not None
    ]
    if not layer_arguments:
        raise ValueError("no attention within one sequence is there for CircuitsVis to show")
    return layer_arguments


def left_out_of_circuitsvis(patterns: Sequence[Pattern]) -> dict[str, str]:
    """Return the sources that `to_circuitsvis` leaves out, each with the reason."""
    _require_one_pass(patterns)
    reason_by_source = {}
    for pattern in patterns:
        if pattern.attention is None:
            reason_by_source[pattern.source] = NO_ATTENTION
        elif not _is_square(pattern):
            reason_by_source[pattern.source] = (
                "queries and keys differ, and CircuitsVis has one list of tokens"
            )
    return reason_by_source


def to_npz(patterns: Sequence[Pattern]) -> bytes:
    """Return the patterns of one pass as a numpy archive.

    The archive has the weights of each source (head, query, key) under SOURCE, the keys under
    SOURCE.tokens and the queries under SOURCE.queries. Raises ValueError for patterns of several
    passes.
    """
    _require_one_pass(patterns)
    arrays = {}
    for pattern in patterns:
        arrays[pattern.source] = np.asarray(pattern.weights)
        arrays[f"{pattern.source}.tokens"] = _string_array(pattern.tokens)
        arrays[f"{pattern.source}.queries"] = _string_array(pattern.queries)
    archive = io.BytesIO()
    # pyright checks every array as if it were the argument of the keyword `allow_pickle`.
    np.savez_compressed(archive, **arrays)  # pyright: ignore[reportArgumentType]
    return archive.getvalue()


def arrays_as_lists(value: Any) -> Any:
    """Return exported arguments with their arrays as lists, for JSON."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: arrays_as_lists(item) for name, item in value.items()}
    if isinstance(value, list):
        return [arrays_as_lists(item) for item in value]
    return value


class KindSize(NamedTuple):
    """How many layers there are of a kind of attention, and how many heads in each."""

    num_layers: int
    num_heads: int

    def __str__(self) -> str:
        layer_noun = "layers" if self.num_layers > 1 else "layer"
        head_noun = "heads" if self.num_heads > 1 else "head"
        return f"{self.num_layers} {layer_noun} x {self.num_heads} {head_noun}"


def _split_for_bertviz(
    patterns: Sequence[Pattern],
) -> tuple[dict[str, list[Pattern]], dict[str, str]]:
    """Return the layers that BertViz shows by kind, and the reason why it does not show the others.

    The reasons are by source. Raises ValueError for patterns of several passes.
    """
    _require_one_pass(patterns)
    patterns_by_kind, reason_by_source = _sort_by_kind(patterns)
    # BertViz assumes that all kinds have as many layers and heads as the first kind; where another
    # kind has more, it drops them or fails.
    size_by_kind = {
        kind: KindSize(len(kind_patterns), len(kind_patterns[0].weights))
        for kind, kind_patterns in patterns_by_kind.items()
    }
    sizes = list(size_by_kind.values())

    def num_maps(size: KindSize) -> int:
        return size.num_layers * sizes.count(size)

    common_size = max(sizes, key=num_maps, default=None)
    for kind, size in size_by_kind.items():
        if size != common_size:
            reason = f"{size}, where BertViz shows {common_size} of each kind"
            reason_by_source |= {p.source: reason for p in patterns_by_kind.pop(kind)}
    return patterns_by_kind, reason_by_source


def _sort_by_kind(
    patterns: Sequence[Pattern],
) -> tuple[dict[str, list[Pattern]], dict[str, str]]:
    """Return the layers of each kind of attention, and the reason why others have no kind."""
    reason_by_source = {p.source: NO_ATTENTION for p in patterns if p.attention is None}
    all_axes = {p.attention.axes for p in patterns if p.attention is not None}
    is_encoder_decoder = len(all_axes) > 1 or any(axes.crosses for axes in all_axes)
    patterns_by_kind: dict[str, list[Pattern]] = {kind: [] for kind in (*KINDS, "attention")}
    for pattern in patterns:
        if pattern.attention is None:
            continue
        if _has_latents(pattern):
            reason_by_source[pattern.source] = "latents are no tokens"
        elif pattern.query_tokens is not None:
            patterns_by_kind["cross_attention"].append(pattern)
        elif not _is_square(pattern):
            reason_by_source[pattern.source] = "not every token looks"
        elif is_encoder_decoder and _reads_inputs(pattern):
            patterns_by_kind["encoder_attention"].append(pattern)
        else:
            kind = "decoder_attention" if is_encoder_decoder else "attention"
            patterns_by_kind[kind].append(pattern)
    non_empty_kinds = {
        kind: kind_patterns for kind, kind_patterns in patterns_by_kind.items() if kind_patterns
    }
    return non_empty_kinds, reason_by_source


def _require_one_pass(patterns: Sequence[Pattern]) -> None:
    """Raise ValueError for patterns of several steps or probes."""
    passes = {(pattern.step, pattern.probe) for pattern in patterns}
    if len(passes) > 1:
        raise ValueError(f"patterns of {len(passes)} steps or probes; give those of one of each")


def _reads_inputs(pattern: Pattern) -> bool:
    """Return whether queries and keys are both inputs, as in an encoder."""
    return pattern.layer is not None and pattern.layer.axes == Axes("inputs", "inputs")


def _is_square(pattern: Pattern) -> bool:
    """Return whether all tokens of one sequence are the queries, and the keys."""
    return pattern.query_tokens is None and list(pattern.query_at) == [*range(len(pattern.tokens))]


def _has_latents(pattern: Pattern) -> bool:
    layer = pattern.layer
    return layer is not None and "latents" in (layer.axes.queries, layer.axes.keys)


def _stackable_arrays(patterns: Sequence[Pattern]) -> list[np.ndarray]:
    """Return the weights (1, head, query, key). Raises ValueError where their shapes differ."""
    arrays = [np.asarray(pattern.weights)[None] for pattern in patterns]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        shape_texts = ", ".join(
            f"{num_heads} heads of {num_queries} x {num_keys}"
            for _, num_heads, num_queries, num_keys in sorted(shapes)
        )
        raise ValueError(f"BertViz stacks layers of one shape, and these have {shape_texts}")
    return arrays


def _string_array(tokens: Sequence[str]) -> np.ndarray:
    # numpy cuts NULs off the end of a string.
    return np.array([token.replace("\0", "␀") for token in tokens], dtype=np.str_)


def _list_first(values: Sequence[Any]) -> str:
    """Return the first eight values as a text."""
    return ", ".join(map(repr, values[:8])) + (", ..." if len(values) > 8 else "") or "none"

"""Patterns of a record in one line, and in the forms that other programs read.

`to_bertviz` gives the arguments of `head_view` and `model_view` (BertViz 1.4.1), `to_circuitsvis`
for each layer those of `attention_heads` (CircuitsVis 1.43.3), of which the older
`attention_patterns` takes "tokens" and "attention".
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.layers import Axes
from attnlab.run_record.patterns import Pattern, probes, recorded
from attnlab.run_record.record import resolve

KINDS = ("encoder_attention", "decoder_attention", "cross_attention")
"""What BertViz shows of an encoder and a decoder."""
NO_ATTENTION = "no attention"


def patterns(
    run: str | Path,
    step: int | None = None,
    probe: str | None = None,
    runs_dir: str | Path | None = None,
) -> list[Pattern]:
    """Read what a run recorded, in order of steps; that of one step or probe, if it is named.

    `run` is a directory or a unique prefix of a name in `runs_dir` ($ATTNLAB_RUNS or "runs" unless
    given). The last of the patterns of each probe and step is the influence of the tokens on the
    answer, which has no layer. Raises RequestError where nothing of that kind was recorded.
    """
    record = resolve(str(run), Path(runs_dir or default_runs_dir()))
    found = recorded(record, step, probe)
    if not found:
        whole = recorded(record, probe=probe)
        raise RequestError(
            f"{record.name} recorded no patterns"
            f"{'' if step is None else f' after step {step}'}"
            f"{'' if probe is None else f' of {probe!r}'}; there are steps "
            f"{_listed(sorted({one.step for one in whole}))} and probes {_listed(probes(record))}"
        )
    return found


def to_bertviz(patterns: Sequence[Pattern]) -> dict[str, Any]:
    """Give the arguments of BertViz: {"attention", "tokens"}, or those of an encoder and decoder.

    Attention is a list of arrays (1, head, query, key), one for each layer; BertViz wants tensors:
    `[torch.from_numpy(layer) for layer in ...]`. It counts the layers and heads that it is given,
    from 0 in each kind, whatever their numbers were in the model.

    Left out, as BertViz has no place for them, are maps that are no attention (mixing matrices,
    influence), and those from or to latents. It shows as many layers and as many heads of the
    encoder, the decoder and what stands between them: of kinds that differ, those with
    the most maps are given. To see another kind, pass its patterns alone, as in
    `[p for p in patterns if p.reading is not None]`. `left_out_of_bertviz` names what is left
    out, and `to_npz` has everything.

    Raises ValueError for patterns of several passes, for none that fit, and for layers of one kind
    with unequal heads, which it cannot stack.
    """
    kinds, _ = _for_bertviz(patterns)
    if not kinds:
        raise ValueError("no attention between tokens of one pass is there for BertViz to show")
    given: dict[str, Any] = {name: _stackable(layers) for name, layers in kinds.items()}
    if "attention" in kinds:
        return given | {"tokens": list(kinds["attention"][0].tokens)}
    encoder, decoder, across = (kinds.get(kind, []) for kind in KINDS)
    tokens = {
        "encoder_tokens": next((list(p.tokens) for p in [*encoder, *across]), None),
        "decoder_tokens": next((list(p.queries) for p in [*decoder, *across]), None),
    }
    return given | {name: words for name, words in tokens.items() if words is not None}


def left_out_of_bertviz(patterns: Sequence[Pattern]) -> dict[str, str]:
    """Say of each source that `to_bertviz` leaves out why it does."""
    return _for_bertviz(patterns)[1]


def to_circuitsvis(patterns: Sequence[Pattern]) -> list[dict[str, Any]]:
    """Give the arguments of CircuitsVis' `attention_heads` for each layer.

    They are {"tokens", "attention" (head, query, key), "attention_head_names" (the layer, and the
    number of the head in it), "mask_upper_tri"}. That is False: CircuitsVis greys out the keys
    after a query unless told not to, also where the model sees them.

    Left out, as CircuitsVis has one list of tokens for both axes, are maps of one sequence reading
    another, and those that are no attention ("*.mixing", `run_record.patterns.INFLUENCE`);
    `left_out_of_circuitsvis` names them, and `to_npz` has everything.

    Raises ValueError for patterns of several passes and for none that fit.
    """
    left = left_out_of_circuitsvis(patterns)
    made = [
        {
            "tokens": list(p.tokens),
            "attention": np.asarray(p.weights),
            "attention_head_names": [f"{p.attention.path}, head {number}" for number in p.numbers],
            "mask_upper_tri": False,
        }
        for p in patterns
        if p.source not in left and p.attention is not None
    ]
    if not made:
        raise ValueError("no attention within one sequence is there for CircuitsVis to show")
    return made


def left_out_of_circuitsvis(patterns: Sequence[Pattern]) -> dict[str, str]:
    """Say of each source that `to_circuitsvis` leaves out why it does."""
    _require_one_pass(patterns)
    found = {}
    for one in patterns:
        if one.attention is None:
            found[one.source] = NO_ATTENTION
        elif not _is_square(one):
            found[one.source] = "queries and keys differ, and CircuitsVis has one list of tokens"
    return found


def to_npz(patterns: Sequence[Pattern]) -> bytes:
    """Write the patterns of one pass as a numpy archive.

    Of each source, SOURCE has the weights (head, query, key), SOURCE.tokens the keys and
    SOURCE.queries what looks. Raises ValueError for patterns of several passes.
    """
    _require_one_pass(patterns)
    arrays = {}
    for one in patterns:
        arrays[one.source] = np.asarray(one.weights)
        arrays[f"{one.source}.tokens"] = _strings(one.tokens)
        arrays[f"{one.source}.queries"] = _strings(one.queries)
    content = io.BytesIO()
    # pyright takes any name for the keyword `allow_pickle`.
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]
    return content.getvalue()


def plain(value: Any) -> Any:
    """Turn the arrays in what is exported into lists, as JSON has them."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def _for_bertviz(
    patterns: Sequence[Pattern],
) -> tuple[dict[str, list[Pattern]], dict[str, str]]:
    """Give the layers of each kind that BertViz shows, and why it does not show the others."""
    _require_one_pass(patterns)
    left = {one.source: NO_ATTENTION for one in patterns if one.attention is None}
    attending = [one for one in patterns if one.attention is not None]
    axes = {one.attention.axes for one in attending if one.attention is not None}
    several = len(axes) > 1 or any(of_layer.crosses for of_layer in axes)
    found: dict[str, list[Pattern]] = {kind: [] for kind in (*KINDS, "attention")}
    for one in attending:
        if _has_latents(one):
            left[one.source] = "latents are no tokens"
        elif one.reading is not None:
            found["cross_attention"].append(one)
        elif not _is_square(one):
            left[one.source] = "not every token looks"
        elif several and _reads_inputs(one):
            found["encoder_attention"].append(one)
        else:
            found["decoder_attention" if several else "attention"].append(one)
    kinds = {kind: layers for kind, layers in found.items() if layers}
    # BertViz takes the layers and heads of the first kind for those of all: of the others it drops
    # what is beyond, or fails.
    sizes = {kind: (len(layers), len(layers[0].weights)) for kind, layers in kinds.items()}
    every = list(sizes.values())
    shown = max(every, key=lambda size: size[0] * every.count(size), default=(0, 0))
    for kind, size in sizes.items():
        if size != shown:
            why = f"{_counted(size)}, where BertViz shows {_counted(shown)} of each kind"
            left |= {one.source: why for one in kinds.pop(kind)}
    return kinds, left


def _counted(size: tuple[int, int]) -> str:
    num_layers, num_heads = size
    return f"{num_layers} layer{'s' * (num_layers > 1)} x {num_heads} head{'s' * (num_heads > 1)}"


def _require_one_pass(patterns: Sequence[Pattern]) -> None:
    if len(passes := {(one.step, one.probe) for one in patterns}) > 1:
        raise ValueError(f"patterns of {len(passes)} steps or probes; give those of one of each")


def _reads_inputs(pattern: Pattern) -> bool:
    """Say whether it is of the inputs alone: of an encoder, where there are other patterns too."""
    return pattern.layer is not None and pattern.layer.axes == Axes("inputs", "inputs")


def _is_square(pattern: Pattern) -> bool:
    """Say whether a whole sequence looks at itself."""
    return pattern.reading is None and list(pattern.query_at) == [*range(len(pattern.tokens))]


def _has_latents(pattern: Pattern) -> bool:
    layer = pattern.layer
    return layer is not None and "latents" in (layer.axes.queries, layer.axes.keys)


def _stackable(layers: Sequence[Pattern]) -> list[np.ndarray]:
    arrays = [np.asarray(layer.weights)[None] for layer in layers]
    if len(shapes := {array.shape for array in arrays}) > 1:
        said = ", ".join(f"{shape[1]} heads of {shape[2]} x {shape[3]}" for shape in sorted(shapes))
        raise ValueError(f"BertViz stacks layers of one shape, and these have {said}")
    return arrays


def _strings(words: Sequence[str]) -> np.ndarray:
    # numpy cuts NULs off the end of a string.
    return np.array([word.replace("\0", "␀") for word in words], dtype=np.str_)


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(repr, values[:8])) + (", ..." if len(values) > 8 else "") or "none"

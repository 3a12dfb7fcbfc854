"""Patterns of a record in one line, and in the forms that other programs read.

`to_bertviz` gives the arguments of `head_view` and `model_view` (BertViz 1.4.1), `to_circuitsvis`
for each layer those of `attention_heads` and the older `attention_patterns` (CircuitsVis 1.43.3).
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attnlab.errors import RequestError
from attnlab.runs.patterns import Pattern, probes, recorded
from attnlab.runs.record import resolve


def patterns(
    run: str | Path,
    step: int | None = None,
    probe: str | None = None,
    runs_dir: str | Path | None = None,
) -> list[Pattern]:
    """Read what a run recorded, in order of steps; that of one step or probe, if it is named.

    `run` is a directory or a unique prefix of a name in `runs_dir` ($ATTNLAB_RUNS or "runs" unless
    given). The last of the patterns of each probe and step is the influence of the tokens on the
    answer (`runs.patterns.INFLUENCE`). Raises RequestError where nothing of that kind was recorded.
    """
    record = resolve(str(run), Path(runs_dir or os.environ.get("ATTNLAB_RUNS", "runs")))
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
    `[torch.from_numpy(layer) for layer in ...]`. Maps from or to latents, which BertViz has no
    place for, are left out. Raises ValueError for patterns of several passes, for none that fit,
    and for layers of unequal heads, which it cannot stack.
    """
    attending = _of_one_pass(patterns)
    encoder = [p for p in attending if _is_encoder(p) and _is_square(p)]
    across = [p for p in attending if p.reading is not None and not _has_latents(p)]
    own = [p for p in attending if not _is_encoder(p) and _is_square(p)]
    if encoder or any(p.reading is not None for p in attending):
        kinds = {"encoder_attention": encoder, "decoder_attention": own, "cross_attention": across}
        tokens = {
            "encoder_tokens": next((list(p.tokens) for p in [*encoder, *across]), None),
            "decoder_tokens": next((list(p.queries) for p in [*own, *across]), None),
        }
    else:
        kinds, tokens = {"attention": own}, {"tokens": list(own[0].tokens) if own else None}
    given: dict[str, Any] = {name: _stackable(layers) for name, layers in kinds.items() if layers}
    if not given:
        raise ValueError("no attention between tokens of one pass is there for BertViz to show")
    return given | {name: words for name, words in tokens.items() if words is not None}


def to_circuitsvis(patterns: Sequence[Pattern]) -> list[dict[str, Any]]:
    """Give the arguments of CircuitsVis: {"tokens", "attention" (head, query, key)} of each layer.

    It has one list of tokens for both axes, so a map of one sequence reading another is left out.
    Raises ValueError for patterns of several passes and for none that fit.
    """
    made = [
        {"tokens": list(p.tokens), "attention": np.asarray(p.weights)}
        for p in _of_one_pass(patterns)
        if _is_square(p)
    ]
    if not made:
        raise ValueError("no attention within one sequence is there for CircuitsVis to show")
    return made


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


def _of_one_pass(patterns: Sequence[Pattern]) -> list[Pattern]:
    _require_one_pass(patterns)
    return [one for one in patterns if one.is_attention]


def _require_one_pass(patterns: Sequence[Pattern]) -> None:
    if len(passes := {(one.step, one.probe) for one in patterns}) > 1:
        raise ValueError(f"patterns of {len(passes)} steps or probes; give those of one of each")


def _is_encoder(pattern: Pattern) -> bool:
    return pattern.source.startswith("encoder.")


def _is_square(pattern: Pattern) -> bool:
    """Say whether a whole sequence looks at itself."""
    return pattern.reading is None and list(pattern.query_at) == [*range(len(pattern.tokens))]


def _has_latents(pattern: Pattern) -> bool:
    # The tokens of a bottleneck are its numbers, "[LATENT 0]" and so on.
    return any(ends[0].startswith("[LATENT ") for ends in (pattern.tokens, pattern.queries) if ends)


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

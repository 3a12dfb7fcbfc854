"""The changes of configs since runs were first recorded (0.1), so that old runs are still found.

A run is found by the hash of its identity, and the identity names classes and their knobs. Who
changes one of these adds a line here, and nothing else:

- a class or function that a config names has a new path: `MOVED`;
- a key of a config has a new name: `RENAMED`;
- a class has a new knob: `ADDED`, with the value at which nothing changes;
- knobs are entries of one knob now, a mapping: `NESTED`;
- a class computes other numbers with an unchanged config: `REVISED`, with the reason, and the
  configs or runs that it concerns, if not all.

So `identity_hash` of an unchanged run stays the same, records of older code are read as if today's
code had written them, and a run whose numbers would differ is trained again, and says why.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class Revision(NamedTuple):
    """A change of a target's numbers."""

    reason: str
    """What the class does now, as in "padding is no longer counted"."""
    concerns: Callable[[Mapping[str, Any]], bool] = lambda node: True
    """Returns whether the numbers of a config node with these knobs changed."""
    concerns_run: Callable[[Mapping[str, Any]], bool] = lambda identity: True
    """Returns whether they changed in a run with this identity."""


def _has_encoder(identity: Mapping[str, Any]) -> bool:
    """Return whether a run's model has an encoder beside the stack that answers."""
    objectives = ("attnlab.objective.seq2seq.Seq2Seq", "attnlab.objective.autoencoder.Autoencoder")
    return (identity.get("objective") or {}).get("_target_") in objectives


MOVED: dict[str, str] = {
    "attnlab.callbacks.clock.Clock": "attnlab.callbacks.cadence.Cadence",
    "attnlab.callbacks.recorder.Recorder": "attnlab.callbacks.patterns.PatternRecorder",
    "attnlab.callbacks.statistics.Statistics": "attnlab.callbacks.head_scores.HeadRecorder",
    "attnlab.callbacks.vectors.Vectors": "attnlab.callbacks.vectors.VectorRecorder",
    "attnlab.evidence.bleu.bleu": "attnlab.evidence.bleu.AnswerBLEU",
    "attnlab.evidence.context.context": "attnlab.evidence.context.ContextUse",
    "attnlab.evidence.gates.lstm": "attnlab.evidence.gates.LSTMGates",
    "attnlab.evidence.heads.heads": "attnlab.evidence.heads.StrongestHeads",
    "attnlab.evidence.pronoun.pronoun": "attnlab.evidence.pronoun.PronounResolution",
    "attnlab.evidence.recall.recall": "attnlab.evidence.recall.RecallCircuit",
    "attnlab.evidence.routing.experts": "attnlab.evidence.routing.ExpertRouting",
    "attnlab.evidence.sampled.sampled": "attnlab.evidence.sampled.SampledLoss",
}
"""First path of a target, in 0.1 or in the version that added it: its path today."""

RENAMED: dict[str, dict[str, str]] = {"callbacks": {"clock": "cadence"}}
"""A config group: the first name of a key in it, and its name today."""

ADDED: dict[str, dict[str, Any]] = {
    "attnlab.mixer.delta_rule.DeltaRule": {"scale_queries": False},
    "attnlab.mixer.differential.Differential": {"num_kv_heads": None},
    "attnlab.mixer.gated_delta.GatedDelta": {"scale_queries": False},
    "attnlab.mixer.gated_linear.GatedLinear": {"scale_queries": False},
    "attnlab.mixer.long_convolution.LongConvolution": {"hyena_filter": False},
    "attnlab.objective.autoregressive.Autoregressive": {"document_mask": False},
}
"""A target's path today: its knobs added later, each with the value that changes nothing."""


class Nested(NamedTuple):
    """A knob that is a mapping, some of whose entries were knobs at first."""

    first_knobs: tuple[str, ...]
    """The entries that were knobs, under the same names."""
    added: Mapping[str, Any]
    """The other entries, each with the value that changes nothing."""


NESTED: dict[str, dict[str, Nested]] = {
    "attnlab.dataset.sentences.Sentences": {
        "layout": Nested(("encoding",), {"text": None, "label": None})
    },
}
"""A target's path today: its knobs that hold earlier ones."""

REVISED: dict[str, list[Revision]] = {
    "attnlab.training.Settings": [
        Revision(
            "gradients are unscaled before they are clipped",
            lambda trainer: trainer.get("precision") == "16-mixed",
        ),
        Revision(
            "every target of a step weighs alike, whichever batch it is in",
            lambda trainer: trainer.get("accumulate_grad_batches", 1) > 1,
        ),
        Revision(
            "the loss is computed in float64",
            lambda trainer: trainer.get("precision") == "64-true",
        ),
    ],
    "attnlab.evidence.gates.LSTMGates": [
        Revision("layers are numbered in module order", concerns_run=_has_encoder)
    ],
    "attnlab.evidence.routing.ExpertRouting": [
        Revision("layers are numbered in module order", concerns_run=_has_encoder)
    ],
    "attnlab.metric.top_k.top_k": [Revision("ties and numbers that are none are no hits")],
    "attnlab.mixer.differential.Differential": [Revision("lambda vectors do not decay")],
    "attnlab.position.relative_bias.RelativeBias": [Revision("the table does not decay")],
    "attnlab.objective.seq2seq.Seq2Seq": [
        Revision(
            "rows of training have the loss without label smoothing",
            lambda objective: objective.get("label_smoothing", 0) > 0,
        )
    ],
}
"""A target's path today: its revisions after the first, the oldest first."""

REVISION = "_revision_"
"""The key beside `_target_` for the revision that was trained; absent for the first."""


class EarlierRevision(NamedTuple):
    """An identity as code before a revision wrote it, and the reasons of the later revisions."""

    identity: dict[str, Any]
    reasons: list[str]


def add_revisions(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's identity with the revision number of each class that has revisions."""

    def state_revision(node: dict[str, Any]) -> None:
        revisions = _reason_by_revision(node, identity)
        if revisions:
            node[REVISION] = max(revisions)

    return _copy_with_changed_nodes(identity, state_revision)


def first_form(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as the first code that could train it would have written it.

    This form is hashed: without later knobs at the value that changes nothing, under first paths.
    """
    first_paths = {path_today: first_path for first_path, path_today in MOVED.items()}

    def restore_first_form(node: dict[str, Any]) -> None:
        target: str = node["_target_"]
        for knob, value in {**ADDED.get(target, {}), REVISION: 1}.items():
            if knob in node and node[knob] == value and type(node[knob]) is type(value):
                del node[knob]
        for knob, nested in NESTED.get(target, {}).items():
            if isinstance(node.get(knob), Mapping):
                entries = {**nested.added, **node.pop(knob)}
                first_knobs = [name for name in nested.first_knobs if name in entries]
                node.update({name: entries.pop(name) for name in first_knobs})
                if entries != nested.added:
                    node[knob] = entries
        node["_target_"] = first_paths.get(target, target)

    first_names = {
        group: {name_today: first_name for first_name, name_today in names_today.items()}
        for group, names_today in RENAMED.items()
    }
    return _rename_keys(_copy_with_changed_nodes(identity, restore_first_form), first_names)


def todays_form(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a record as today's code would write it."""

    def update_node(node: dict[str, Any]) -> None:
        recorded_target: str = node["_target_"]
        target = node["_target_"] = MOVED.get(recorded_target, recorded_target)
        for knob, value in ADDED.get(target, {}).items():
            node.setdefault(knob, value)
        for knob, nested in NESTED.get(target, {}).items():
            entries = {name: node.pop(name) for name in nested.first_knobs if name in node}
            if entries:
                node[knob] = {**nested.added, **node.get(knob, {}), **entries}
        if _reason_by_revision(node, identity):
            node.setdefault(REVISION, 1)

    return _rename_keys(_copy_with_changed_nodes(identity, update_node), RENAMED)


def earlier_revisions(identity: Mapping[str, Any]) -> Iterator[EarlierRevision]:
    """Yield an identity at each combination of earlier revisions of its classes, newest first."""
    newest_revision: dict[str, int] = {}

    def note_revision(node: dict[str, Any]) -> None:
        target = node["_target_"]
        newest_revision[target] = max(newest_revision.get(target, 1), node.get(REVISION, 1))

    _copy_with_changed_nodes(identity, note_revision)
    revised_targets = [target for target, revision in newest_revision.items() if revision > 1]
    revision_ranges = [range(newest_revision[target], 0, -1) for target in revised_targets]
    # The first combination has the newest revision of every target: the identity itself.
    for revisions in itertools.islice(itertools.product(*revision_ranges), 1, None):
        revision_by_target = dict(zip(revised_targets, revisions, strict=True))
        earlier_identity = _set_back(identity, revision_by_target)
        _, reasons = strip_revisions(earlier_identity)
        yield EarlierRevision(earlier_identity, reasons)


def _set_back(identity: Mapping[str, Any], revision_by_target: Mapping[str, int]) -> dict[str, Any]:
    """Return an identity in which no target has a later revision than the stated one."""

    def set_back_node(node: dict[str, Any]) -> None:
        target = node["_target_"]
        if target in revision_by_target:
            node[REVISION] = min(node.get(REVISION, 1), revision_by_target[target])

    return _copy_with_changed_nodes(identity, set_back_node)


def strip_revisions(identity: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return an identity without revision keys, and the reasons of revisions since its training."""
    reasons: list[str] = []

    def strip_and_collect_reasons(node: dict[str, Any]) -> None:
        trained_revision = node.pop(REVISION, 1)
        for revision, reason in _reason_by_revision(node, identity).items():
            if revision > trained_revision:
                reasons.append(f"{node['_target_']}: {reason}")

    stripped_identity = _copy_with_changed_nodes(identity, strip_and_collect_reasons)
    return stripped_identity, list(dict.fromkeys(reasons))


def _rename_keys(
    identity: dict[str, Any], new_names_by_group: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Return an identity in which the keys of some groups have their new names."""
    renamed_groups = {
        group: {new_names.get(key, key): value for key, value in identity[group].items()}
        for group, new_names in new_names_by_group.items()
        if isinstance(identity.get(group), Mapping)
    }
    return {**identity, **renamed_groups}


def _reason_by_revision(node: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[int, str]:
    """Return the reason of each revision that concerns a node; its first code was revision 1."""
    numbered_revisions = enumerate(REVISED.get(node["_target_"], ()), start=2)
    return {
        number: revision.reason
        for number, revision in numbered_revisions
        if revision.concerns(node) and revision.concerns_run(identity)
    }


def _copy_with_changed_nodes(
    identity: Mapping[str, Any], change_node: Callable[[dict[str, Any]], None]
) -> Any:
    """Return a copy of a tree after `change_node` on each node with a target, innermost first."""

    def copy_node(value: Any) -> Any:
        if isinstance(value, Mapping):
            node = {key: copy_node(child) for key, child in value.items()}
            if isinstance(node.get("_target_"), str):
                change_node(node)
            return node
        return [copy_node(child) for child in value] if isinstance(value, (list, tuple)) else value

    return copy_node(identity)

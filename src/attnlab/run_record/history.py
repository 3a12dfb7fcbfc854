"""What has changed since runs were first recorded (0.1), so that upgrading orphans none of them.

A run is found by the hash of its identity, and the identity names classes and their knobs. Whoever
changes one of these adds a line here, and nothing else:

- a class or function that a config names has another path: `MOVED`;
- a class has a knob that it did not have: `ADDED`, with the value at which nothing changes;
- a class gives other numbers at an unchanged config: `REVISED`, with the reason, and with which
  configs, where it is not so of all.

So `identity_hash` of an unchanged run stays what it was, records of older code are read as if
today's had written them, and a run whose numbers would differ is trained anew, and says why.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


class Revision(NamedTuple):
    """A change of a target's numbers."""

    reason: str
    """What is so now, as in "padding is no longer counted"."""
    concerns: Callable[[Mapping[str, Any]], bool] = lambda node: True
    """Whether the numbers of a node with these knobs changed."""


MOVED: dict[str, str] = {
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
"""The path of a target in 0.1, or when it came: its path today."""

ADDED: dict[str, dict[str, Any]] = {
    "attnlab.mixer.delta_rule.DeltaRule": {"scale_queries": False},
    "attnlab.mixer.differential.Differential": {"num_kv_heads": None},
    "attnlab.mixer.gated_delta.GatedDelta": {"scale_queries": False},
    "attnlab.mixer.gated_linear.GatedLinear": {"scale_queries": False},
    "attnlab.mixer.long_convolution.LongConvolution": {"hyena_filter": False},
}
"""A target's path today: its knobs that came later, each with the value that changes nothing."""

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
"""The key beside `_target_` that says which revision of it was trained; absent for the first."""


class EarlierRevision(NamedTuple):
    """An identity as code before a revision had it, and what has changed since."""

    identity: dict[str, Any]
    reasons: list[str]


def revised(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's identity with the revision of each class that has one."""

    def stamp(node: dict[str, Any]) -> None:
        changes = _changes(node)
        if changes:
            node[REVISION] = 1 + max(changes)

    return _rewritten(identity, stamp)


def first_form(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as the first code that could train it would have written it.

    This is what is hashed: without what came later and changes nothing, under the first paths.
    """
    first_path = {today: first for first, today in MOVED.items()}

    def restore(node: dict[str, Any]) -> None:
        target: str = node["_target_"]
        for knob, value in {**ADDED.get(target, {}), REVISION: 1}.items():
            if knob in node and node[knob] == value and type(node[knob]) is type(value):
                del node[knob]
        node["_target_"] = first_path.get(target, target)

    return _rewritten(identity, restore)


def todays_form(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a record as today's code would write it."""

    def update(node: dict[str, Any]) -> None:
        first: str = node["_target_"]
        target = node["_target_"] = MOVED.get(first, first)
        for knob, value in ADDED.get(target, {}).items():
            node.setdefault(knob, value)
        if _changes(node):
            node.setdefault(REVISION, 1)

    return _rewritten(identity, update)


def earlier_revisions(identity: Mapping[str, Any]) -> Iterator[EarlierRevision]:
    """Yield an identity as it was at each combination of earlier revisions, the newest first."""
    newest: dict[str, int] = {}

    def note(node: dict[str, Any]) -> None:
        target = node["_target_"]
        newest[target] = max(newest.get(target, 1), node.get(REVISION, 1))

    _rewritten(identity, note)
    names = [name for name, number in newest.items() if number > 1]
    choices = [range(newest[name], 0, -1) for name in names]
    for numbers in itertools.islice(itertools.product(*choices), 1, None):
        earlier = dict(zip(names, numbers, strict=True))

        def set_back(node: dict[str, Any], earlier: Mapping[str, int] = earlier) -> None:
            if node["_target_"] in earlier:
                node[REVISION] = min(node.get(REVISION, 1), earlier[node["_target_"]])

        since = _rewritten(identity, set_back)
        yield EarlierRevision(since, without_revisions(since)[1])


def without_revisions(identity: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return an identity in the form of a config, and what has changed since it was trained."""
    reasons: list[str] = []

    def strip(node: dict[str, Any]) -> None:
        trained = node.pop(REVISION, 1)
        for number, reason in _changes(node).items():
            if number >= trained:
                reasons.append(f"{node['_target_']}: {reason}")

    return _rewritten(identity, strip), list(dict.fromkeys(reasons))


def _changes(node: Mapping[str, Any]) -> dict[int, str]:
    """Return the revisions that concern a node, counted from 1, each with its reason."""
    revisions = enumerate(REVISED.get(node["_target_"], ()), start=1)
    return {number: change.reason for number, change in revisions if change.concerns(node)}


def _rewritten(identity: Mapping[str, Any], change: Callable[[dict[str, Any]], None]) -> Any:
    """Copy a tree, and change each part of it that names a target; the inner parts first."""

    def copy(value: Any) -> Any:
        if isinstance(value, Mapping):
            node = {key: copy(child) for key, child in value.items()}
            if isinstance(node.get("_target_"), str):
                change(node)
            return node
        return [copy(child) for child in value] if isinstance(value, (list, tuple)) else value

    return copy(identity)

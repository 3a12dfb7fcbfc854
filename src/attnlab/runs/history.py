"""What has changed since runs were first recorded (0.1), so that upgrading orphans none of them.

A run is found by the hash of its identity, and the identity names classes and their knobs. Whoever
changes one of these adds a line here, and nothing else:

- a class or function that a config names has another path: `MOVED`;
- a class has a knob that it did not have: `ADDED`, with the value at which nothing changes;
- a class gives other numbers at an unchanged config: `REVISED`, with the reason.

So `identity_hash` of an unchanged run stays what it was, records of older code are read as if
today's had written them, and a run whose numbers would differ is trained anew, and says why.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

MOVED: dict[str, str] = {}
"""The path of a target in 0.1, or when it came: its path today."""

ADDED: dict[str, dict[str, Any]] = {}
"""A target's path today: its knobs that came later, each with the value that changes nothing."""

REVISED: dict[str, list[str]] = {}
"""A target's path today: why its numbers changed, one sentence for each revision after the first.

A sentence goes on from "its numbers changed: ", as in "padding is no longer counted".
"""

REVISION = "_revision_"
"""The key beside `_target_` that says which revision of it was trained; absent for the first."""


class EarlierRevision(NamedTuple):
    """An identity as code before a revision had it, and what has changed since."""

    identity: dict[str, Any]
    reasons: list[str]


def revised(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's identity with the revision of each class that has one."""

    def stamp(node: dict[str, Any]) -> None:
        reasons = REVISED.get(node["_target_"])
        if reasons:
            node[REVISION] = 1 + len(reasons)

    return _rewritten(identity, stamp)


def first_form(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as the first code that could train it would have written it.

    This is what is hashed: without what came later and changes nothing, under the first paths.
    """
    first_path = {today: first for first, today in MOVED.items()}

    def restore(node: dict[str, Any]) -> None:
        target: str = node["_target_"]
        for knob, value in _later(target).items():
            if knob in node and node[knob] == value and type(node[knob]) is type(value):
                del node[knob]
        node["_target_"] = first_path.get(target, target)

    return _rewritten(identity, restore)


def todays_form(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a record as today's code would write it."""

    def update(node: dict[str, Any]) -> None:
        first: str = node["_target_"]
        target = node["_target_"] = MOVED.get(first, first)
        for knob, value in _later(target).items():
            node.setdefault(knob, value)

    return _rewritten(identity, update)


def earlier_revisions(identity: Mapping[str, Any]) -> Iterator[EarlierRevision]:
    """Yield an identity as it was at each combination of earlier revisions, the newest first."""
    newest: dict[str, int] = {}
    _rewritten(identity, lambda node: newest.update({node["_target_"]: node.get(REVISION, 1)}))
    names = [name for name, number in newest.items() if number > 1]
    choices = [range(newest[name], 0, -1) for name in names]
    for numbers in itertools.islice(itertools.product(*choices), 1, None):
        earlier = dict(zip(names, numbers, strict=True))

        def set_back(node: dict[str, Any], earlier: Mapping[str, int] = earlier) -> None:
            if node["_target_"] in earlier:
                node[REVISION] = earlier[node["_target_"]]

        reasons = [
            f"{name}: {reason}"
            for name, number in earlier.items()
            for reason in REVISED[name][number - 1 :]
        ]
        yield EarlierRevision(_rewritten(identity, set_back), reasons)


def without_revisions(identity: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return an identity in the form of a config, and what has changed since it was trained."""
    reasons: list[str] = []

    def strip(node: dict[str, Any]) -> None:
        changes = REVISED.get(node["_target_"], [])[node.pop(REVISION, 1) - 1 :]
        reasons.extend(f"{node['_target_']}: {reason}" for reason in changes)

    return _rewritten(identity, strip), list(dict.fromkeys(reasons))


def _later(target: str) -> dict[str, Any]:
    """Return what a target's node may lack in an older record, with what its absence means."""
    return {**ADDED.get(target, {}), **({REVISION: 1} if target in REVISED else {})}


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

"""`attnlab ablate --prune`: what is left of a metric as heads are removed one by one."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from attnlab.commands.ablate.base import means, table
from attnlab.commands.base import measured
from attnlab.console import Console
from attnlab.evidence.importance import alone, greedy, importance, pruning, shuffled
from attnlab.evidence.intervene import Head, attention_layers, questions
from attnlab.trained import Trained


def find(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    """Remove the chosen heads in their order, and in as many random ones as were asked for."""
    split, metric, _ = measured(arguments, loaded)
    asked = list(questions(loaded.model, loaded.objective, loaded.dataset.splits[split]))
    mean, by = means(arguments, loaded, split), arguments.order or "gradient"

    def loss() -> float:
        return loaded.evaluate(split)["loss"]

    if by == "greedy":
        order = greedy(loaded.model, chosen, loss, mean)
    elif by == "ablation":
        order = sorted(chosen, key=alone(loaded.model, chosen, loss, mean).__getitem__)
    else:
        gates = importance(loaded.model, loaded.objective, asked, loaded.precision)
        by_head = gates.heads if by == "gradient" else gates.normalised
        order = sorted(chosen, key=by_head.__getitem__)

    def course(order: Sequence[Head]) -> list[float]:
        return pruning(loaded.model, order, lambda: loaded.evaluate(split)[metric], mean)

    names = attention_layers(loaded.model)
    removed = [(None, None, None), *((layer, names[layer], head) for layer, head in order)]
    curve = [
        {"removed": count, "layer": layer, "name": name, "head": head, "value": value}
        for count, ((layer, name, head), value) in enumerate(
            zip(removed, course(order), strict=True)
        )
    ]
    method = arguments.method or "zero"
    found = {"split": split, "metric": metric, "method": method, "order": by, "curve": curve}
    if arguments.random is not None:
        orders = [shuffled(chosen, seed) for seed in range(arguments.random)]
        found["random"] = [course(order) for order in orders]
    return found


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what is left after each removal."""
    metric, (whole, *curve) = found["metric"], found["curve"]
    console.print(f"{metric} on the {found['split']} split: {whole['value']:.4f}")
    how = "with mean patterns" if found["method"] == "mean" else "without"
    console.print(f"{how}, one head more each time, the least needed first by {found['order']}")
    random = found.get("random", [])
    shown = table("layer", "head", "gone", metric, "change", *(["random"] if random else []))
    for row, *drawn in zip(curve, *(values[1:] for values in random), strict=True):
        numbers = [f"{row['value']:.4f}", f"{row['value'] - whole['value']:+.4f}"]
        numbers += [f"{sum(drawn) / len(drawn):.4f}"] if drawn else []
        layer = f"{row['layer']} {row['name']}"
        shown.add_row(layer, str(row["head"]), str(row["removed"]), *numbers)
    console.print(shown)
    if random:
        console.print(f"random: the same with heads removed by chance, mean of {len(random)}")


def picture(found: dict[str, Any], ending: str) -> bytes:
    """Draw the curve, as a file with such an ending holds it."""
    # The figures take a while to load, and a table needs none.
    from attnlab.figures.base import drawn
    from attnlab.figures.embeddings import page
    from attnlab.figures.pruning import pruning as draw

    curve, random = found["curve"], found.get("random", [])
    how = "their mean patterns" if found["method"] == "mean" else "nothing"
    caption = [
        f"{found['run']}, step {found['step']}, {found['split']} split",
        f"removed heads pass on {how}; the least needed first by {found['order']}",
    ]
    if random:
        caption.append(f"band: lowest to highest of {len(random)} random orders")
    figure = draw(
        *([row["value"] for row in curve], [f"L{r['layer']}H{r['head']}" for r in curve[1:]]),
        *(found["metric"], f"least needed first by {found['order']}", caption, random),
    )
    if ending == ".html":
        return page(figure, found["run"]).encode()
    return drawn(figure, ending)

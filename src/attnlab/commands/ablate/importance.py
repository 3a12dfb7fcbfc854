"""`attnlab ablate --importance`: what a gate's gradient says of a head, and what is true."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from attnlab.commands.ablate.base import table
from attnlab.console import Console
from attnlab.evidence.importance import importance, rank_correlation
from attnlab.evidence.intervene import Head, attention_layers, prune, questions
from attnlab.trained import Trained


def find(arguments: Namespace, loaded: Trained, chosen: Sequence[Head]) -> dict[str, Any]:
    """Measure each chosen head both ways."""
    split = arguments.split or "validation"
    whole = loaded.evaluate(split)["loss"]
    asked = questions(loaded.model, loaded.objective, loaded.dataset.splits[split])
    found = importance(loaded.model, loaded.objective, asked, loaded.precision)
    names, rows = attention_layers(loaded.model), []
    for head in chosen:
        with prune(loaded.model, [head]):
            value = loaded.evaluate(split)["loss"]
        rows.append(
            {
                "layer": head[0],
                "name": names[head[0]],
                "head": head[1],
                "gradient": found.heads[head],
                "normalised": found.normalised[head],
                "expected": -found.slopes[head],
                "value": value,
                "change": value - whole,
            }
        )
    alike = rank_correlation([r["gradient"] for r in rows], [r["change"] for r in rows])
    return {"split": split, "loss": whole, "heads": rows, "rank_correlation": alike}


def show(console: Console, found: dict[str, Any]) -> None:
    """Print both beside each other."""
    console.print(f"loss on the {found['split']} split: {found['loss']:.4f} nats")
    shown = table("layer", "head", "gradient", "in layer", "expected", "change")
    for row in found["heads"]:
        numbers = [f"{row['gradient']:.2g}", f"{row['normalised']:.2f}"]
        numbers += [f"{row['expected']:+.4f}", f"{row['change']:+.4f}"]
        shown.add_row(f"{row['layer']} {row['name']}", str(row["head"]), *numbers)
    console.print(shown)
    console.print("gradient: of a gate on the head, mean of |d loss / d gate|; in layer: its share")
    console.print("of the layer's l2 norm; expected: change of the loss without the head, if it")
    console.print("were linear; change: what it is")
    if found["rank_correlation"] is not None:
        alike = found["rank_correlation"]
        console.print(f"rank correlation of gradient and change: {alike:.2f}")

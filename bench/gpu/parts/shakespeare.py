"""nanoGPT's settings for a GPU, as `attnlab reproduce shakespeare --scale paper` trains them."""

import os
from dataclasses import replace
from pathlib import Path

from attnlab.config import compose, search_path
from attnlab.reproduce.recipe import experiments_dir, load_recipes
from bench.gpu.part import Found, Given, Part

PAPER, SCALE, ARM = "shakespeare", "paper", "gpt"
RECIPE = load_recipes(experiments_dir(), PAPER)[SCALE]


def lacks(given: Given) -> str | None:
    """Ask for the text, which is no part of attnlab."""
    return "it needs tiny Shakespeare: give --text FILE" if given.text is None else None


def measure(given: Given) -> Found:
    """Train one seed of the recipe, or go on with it; raises KeyboardInterrupt once it is saved."""
    # Lightning takes seconds to import, which no other part needs.
    from attnlab.console import Console
    from attnlab.interruption import Interrupted
    from attnlab.launch.run import run
    from attnlab.reproduce.claims import Near
    from attnlab.run_record.record import Record

    settings = given.settings
    with search_path() as own:
        place = f"dataset.path='{given.text}'"
        config = compose([*settings["words"], place], own)
    runs_dir = Path(os.environ.get("ATTNLAB_RUNS", "runs"), settings["runs"])
    ours = {"runs_dir": str(runs_dir), "seed": settings["seed"]}
    config = replace(config, values={**config.values, **ours})
    try:
        outcome = run(config, Console(force_terminal=False))
    except Interrupted as interruption:
        raise KeyboardInterrupt(str(interruption)) from interruption
    result = outcome.result
    if result is None:
        raise RuntimeError(f"{outcome.directory}: {outcome.status} {outcome.note}")
    claim = next(claim for claim in RECIPE.claims if claim.name == f"published/{ARM}")
    assert isinstance(claim.bound, Near)
    table = Record(outcome.directory).rows("validation")
    losses, steps = table["loss"].to_pylist(), table["step"].to_pylist()
    least = min(losses)
    row = {
        "seed": settings["seed"],
        "least loss on validation": f"{least:.4f}",
        "at step": steps[losses.index(least)],
        "last": f"{losses[-1]:.4f}",
        "claim": str(claim.bound),
        "within": "yes" if abs(least - claim.bound.value) <= claim.bound.tolerance else "no",
        "steps": result.steps,
        "s": result.seconds,
        "run": outcome.directory.name,
    }
    return Found([row], ["s: of the attempt that ended the run"])


def _part(seed: int) -> Part:
    words = RECIPE.overrides(ARM)
    tiny = [
        *("batch_size=2", "dataset.length=8", "dataset.sha256=null", "dataset.validation=0.01"),
        *("model.num_layers=1", "model.d_model=12", "trainer.accelerator=cpu"),
        *("trainer.max_steps=4", "trainer.val_check_interval=2"),
    ]
    return Part(
        name=f"{PAPER}-{seed}",
        says=(
            f"Seed {seed} of `attnlab reproduce {PAPER} --scale {SCALE}`: nanoGPT's settings for a "
            "GPU, whose README has 1.4697 as the least loss on validation; one seed is no "
            "judgement, the command is. Runs lie where it looks for them."
        ),
        seconds=240,
        # Where `attnlab reproduce` looks for them, so that it takes them for its own.
        real={"seed": seed, "words": words, "runs": f"reproduce/{PAPER}-{SCALE}"},
        dry={"seed": seed, "words": [*words, *tiny], "runs": "gpu-dry"},
        measure=measure,
        lacks=lacks,
        resumes=True,
    )


PARTS = [_part(seed) for seed in range(RECIPE.seeds)]

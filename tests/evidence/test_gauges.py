"""What a model reads off itself is the mean over a whole split, however the split is cut."""

import pytest
import torch

from attnlab.evaluation.evaluate import evaluate
from attnlab.split import IGNORE
from attnlab.tap import record

SMALL = (
    *("dataset.num_train=40", "dataset.num_validation=30", "dataset.num_test=20"),
    *("dataset=reversal", "variant=moe", "model.d_model=16", "depth=shallow"),
)


@pytest.mark.parametrize("ffn", ["moe", "expert_choice"])
def test_gauges_hang_on_no_batch_size(experiment, ffn):
    overrides = [*SMALL, f"model/ffn={ffn}"] + ["objective=autoencoder"] * (ffn != "moe")
    made = experiment(*overrides)
    split = made.dataset.splits["validation"]
    readings = [evaluate(made.subject, split, {}, batch_size=size) for size in (30, 7, 1)]
    assert any(".load." in name for name in readings[0])
    assert readings[0] == pytest.approx(readings[1], rel=1e-5)
    assert readings[0] == pytest.approx(readings[2], rel=1e-5)


def test_the_load_is_the_share_of_all_assignments(experiment):
    made = experiment(*SMALL)
    split = made.dataset.splits["validation"]
    reading = evaluate(made.subject, split, {}, batch_size=7)
    counts = torch.zeros(made.model.blocks[0].ffn.num_experts)
    prefix = ""
    for batch in split.batches(1):
        asked = made.objective.training_batch(batch)
        with record(made.model, "*.probability") as heard, torch.no_grad():
            made.model(*asked.model_inputs)
        name = next(n for n in heard if "blocks.0" in n and "encoder" not in n)
        prefix = name.removesuffix("probability")
        chosen = heard[name].topk(2, dim=-1).indices
        real = asked.prefix_valid if asked.prefix_valid is not None else asked.targets != IGNORE
        counts += torch.bincount(chosen[real.flatten()].flatten(), minlength=len(counts))
    shares = (counts / counts.sum()).tolist()
    assert [reading[f"{prefix}load.{i}"] for i in range(len(shares))] == pytest.approx(shares)

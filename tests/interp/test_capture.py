"""What is seen is what the model does, and seeing changes nothing."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from einops import rearrange

from attnlab.experiment import Experiment
from attnlab.interp.attribution import logits_and_influence, mixing_matrices
from attnlab.interp.capture import capture
from attnlab.layers import MixingLayer
from attnlab.split import Batch
from attnlab.tap import edit
from tests.choices import causal_variants, choices

TEXT = "The animal didn't cross the street because it was too tired."


@pytest.mark.parametrize(
    ("variant", "causal"),
    [
        *((variant, "false") for variant in choices("variant")),
        *((variant, "true") for variant in causal_variants()),
    ],
)
def test_influence_is_the_slope_of_the_answer_along_a_tokens_vector(experiment, variant, causal):
    made = experiment(f"variant={variant}", f"objective.causal={causal}", "model.d_model=16")
    asked = made.objective.training_batch(made.dataset.batch_of_text("it was wide."))
    model = made.model.double().eval()
    logits, shares = logits_and_influence(model, asked)
    best = int(logits[0, -1].argmax())

    def answer(token: int, scale: float) -> float:
        def stretch(_name: str, vectors: torch.Tensor) -> torch.Tensor:
            stretched = vectors.clone()
            stretched[:, token] *= scale
            return stretched

        with torch.no_grad(), edit(model, "embedded", stretch):
            return float(model(asked.inputs, asked.at, asked.valid)[0][0, -1, best])

    step = 1e-3
    slopes = torch.tensor(
        [
            (answer(token, 1 + step) - answer(token, 1 - step)) / (2 * step)
            for token in range(asked.inputs.shape[1])
        ]
    ).abs()
    torch.testing.assert_close(shares[0], (slopes / slopes.sum()).float(), atol=1e-4, rtol=1e-3)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)


def test_influence_of_a_batch_is_that_of_each_sequence_and_padding_has_none(experiment):
    for variant in ("multihead", "lstm"):
        made = experiment(f"variant={variant}")
        batch = made.dataset.splits["test"].batch(torch.arange(5).numpy())
        _, shares = logits_and_influence(made.model.eval(), made.objective.training_batch(batch))
        assert batch.valid is not None
        assert (shares[~batch.valid] == 0).all()
        for row in range(5):
            length = int(batch.valid[row].sum())
            assert batch.at is not None
            one_row = slice(row, row + 1)
            alone = Batch(batch.inputs[one_row, :length], batch.targets[one_row], batch.at[one_row])
            _, one = logits_and_influence(made.model, made.objective.training_batch(alone))
            torch.testing.assert_close(shares[row, :length], one[0], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("variant", choices("variant"))
def test_looking_leaves_no_trace(experiment, variant):
    made = experiment(f"variant={variant}", "model.dropout=0.2", "depth=shallow")
    model, probe = made.model.train(), made.dataset.batch_of_text(TEXT)
    before = torch.get_rng_state()
    seen = capture(made.subject, probe)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(weights.grad is None for weights in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())
    asked = made.objective.training_batch(probe)
    with torch.no_grad():
        undropped, _ = model.eval()(asked.inputs, asked.at, asked.valid)
    torch.testing.assert_close(seen.answer, undropped[0, -1])


def test_what_is_seen_is_the_softmax_of_query_times_key(experiment):
    made = experiment("depth=shallow", "variant=multihead")
    model, probe = made.model, made.dataset.batch_of_text(TEXT)
    seen = capture(made.subject, probe)
    (pattern,) = seen.patterns.values()
    block = model.blocks[0]
    at = torch.arange(probe.inputs.shape[1])
    x = block.mixer_norm(model.position.embed(model.embedding(probe.inputs), at))
    query, key, _ = (
        rearrange(part, "1 s (h d) -> h s d", h=4)
        for part in block.mixer.query_key_value(x).chunk(3, dim=-1)
    )
    expected = (query @ key.transpose(1, 2) / 4).softmax(dim=-1)
    torch.testing.assert_close(pattern, expected)
    assert made.dataset.tokens[probe.inputs[0, seen.answer_position]] == "it"
    torch.testing.assert_close(seen.answer, model.eval()(probe.inputs, probe.at)[0][0, 0])


def test_a_causal_model_is_asked_at_the_end_and_never_looks_ahead(experiment):
    made = experiment("objective.causal=true")
    seen = capture(made.subject, made.dataset.batch_of_text(TEXT))
    assert seen.answer_position == len(seen.inputs) - 1
    for pattern in seen.patterns.values():
        assert (pattern.triu(1) == 0).all()


def test_of_several_questions_the_last_is_told(composed):
    words = ("dataset=mqar", "dataset.length=24", "dataset.num_pairs=3", "model.d_model=16")
    made = Experiment(composed(*words, "dataset.num_validation=9", "evidence=none"))
    (probe,) = made.dataset.probes(1).values()
    asked = made.objective.inspection_batch(probe)
    seen = capture(made.subject, probe)
    with torch.no_grad():
        logits = made.model.eval()(*asked.model_inputs)[0][0]
    assert asked.at is not None
    assert seen.answer_position == int(asked.at.max()) > int(asked.at.min())
    torch.testing.assert_close(seen.answer, logits[-1])
    assert not torch.allclose(logits[0], logits[-1])


def test_of_a_linear_mixer_the_shares_of_each_row_are_seen(experiment):
    made = experiment("variant=multihead", "model/mixer=gated_delta")
    seen = capture(made.subject, made.dataset.batch_of_text(TEXT))
    signed = mixing_matrices(
        made.model, made.objective.inspection_batch(made.dataset.batch_of_text(TEXT))
    )
    assert seen.weights.keys() == signed.keys()
    assert seen.patterns == {}
    assert min(float(matrix.min()) for matrix in signed.values()) < 0
    for layer, weights in seen.weights.items():
        assert isinstance(layer, MixingLayer)
        sizes = signed[layer].abs()
        torch.testing.assert_close(weights, sizes / sizes.sum(dim=-1, keepdim=True))


def test_a_model_is_looked_at_in_the_precision_that_is_given(experiment):
    made = experiment("variant=multihead")
    probe = made.dataset.batch_of_text(TEXT)
    exact, rough = (
        capture(replace(made.subject, precision=precision), probe).answer
        for precision in (nullcontext, partial(torch.autocast, "cpu", torch.bfloat16))
    )
    assert not torch.equal(exact, rough.float())
    torch.testing.assert_close(exact, rough.float(), atol=0.5, rtol=0.1)


@pytest.mark.parametrize(("mixer", "num_passes"), [("multihead", 1), ("gated_delta", 2)])
def test_capture_passes_a_sequence_once_more_only_for_mixing_matrices(
    experiment, mixer, num_passes
):
    made = experiment("variant=multihead", f"model/mixer={mixer}", "objective.causal=true")
    passes = []
    made.model.register_forward_hook(lambda *_: passes.append(1))
    capture(made.subject, made.dataset.batch_of_text(TEXT))
    assert len(passes) == num_passes

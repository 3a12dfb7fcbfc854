"""What heads carry adds up to what the mixer gives, and its lengths are those of vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from einops import einsum, rearrange, reduce
from scipy.stats import spearmanr

from attnlab.interp.attention_taps import record_patterns
from attnlab.interp.circuits import value_and_output_weights
from attnlab.interp.subject import Subject
from attnlab.interp.value_norms import Norms, transform_values, weighted_norms
from attnlab.mixer.base import GroupedAttention
from attnlab.model.base import DECODER, ENCODER, ENCODER_DECODER, Arrangement, Model
from attnlab.objective.base import Objective
from attnlab.split import Batch
from tests.model.build import transformer
from tests.prose import refuses

LENGTH = 6
VALID = torch.arange(LENGTH) < torch.tensor([[6], [4], [1]])


class AsIs(Objective):
    """Asks what the data ask."""

    def __init__(self, arrangement: Arrangement = ENCODER) -> None:
        self.arrangement = arrangement

    @property
    def outputs(self) -> Sequence[str]:
        return "abcd"

    def training_batch(self, batch: Batch) -> Batch:
        return batch


def made(
    mixer: str = "multihead", arrangement: Arrangement = ENCODER
) -> tuple[Model, Subject, Batch]:
    model = transformer(arrangement, mixer=mixer, num_layers=2).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.3 * torch.randn_like(weights)
    inputs = torch.randint(11, (3, LENGTH))
    asked = Batch(inputs, inputs[:, :1], torch.zeros(3, 1, dtype=torch.long), VALID)
    return model, Subject(model, AsIs(arrangement)), asked


@pytest.mark.parametrize("mixer", ["multihead", "grouped_query", "sliding_window"])
@pytest.mark.parametrize("arrangement", [ENCODER, DECODER], ids=["both ways", "causal"])
def test_the_vectors_that_are_measured_add_up_to_the_output_without_its_bias(mixer, arrangement):
    model, subject, asked = made(mixer, arrangement)
    layers = {
        name: part for name, part in model.named_modules() if isinstance(part, GroupedAttention)
    }
    heard = {}
    hooks = [
        hook
        for name, part in layers.items()
        for hook in (
            part.register_forward_hook(lambda _, __, out, name=name: heard.update({name: out})),
            part.attend.register_forward_pre_hook(
                lambda _, given, name=name: heard.update({f"{name} value": given[2]})
            ),
        )
    ]
    found = weighted_norms(subject, asked)
    for hook in hooks:
        hook.remove()
    assert list(found) == model.attention_layers()
    assert [layer.path for layer in found] == [f"{name}.attend" for name in layers]
    for (name, part), norms in zip(layers.items(), found.values(), strict=True):
        assert norms.raw.dtype == torch.float32
        assert part.output.bias.abs().min() > 0
        carried = transform_values(heard[f"{name} value"], value_and_output_weights(part)[1])
        vectors = einsum(norms.pattern, carried, "b h q k, b h k m -> b h q k m")
        torch.testing.assert_close(vectors.norm(dim=-1), norms.raw, atol=1e-5, rtol=1e-4)
        summed = reduce(vectors, "b h q k m -> b q m", "sum")
        output = (heard[name] - part.output.bias)[VALID]
        torch.testing.assert_close(summed[VALID], output, atol=1e-4, rtol=1e-4)
        assert not summed[~VALID].any()


def test_shares_are_lengths_over_those_of_their_row_and_padding_has_none():
    _, subject, asked = made()
    for norms in weighted_norms(subject, asked).values():
        rows = reduce(norms.shares, "b h q k -> b h q", "sum")
        torch.testing.assert_close(rows, rearrange(VALID.float(), "b q -> b 1 q").expand_as(rows))
        assert not norms.raw.masked_select(~rearrange(VALID, "b k -> b 1 1 k")).any()
        torch.testing.assert_close(
            norms.shares * norms.raw.sum(dim=-1, keepdim=True), norms.raw, atol=1e-6, rtol=1e-5
        )


def test_what_reads_another_sequence_is_masked_by_the_padding_of_its_own():
    model = transformer(ENCODER_DECODER, num_layers=1).eval()
    prefix = torch.randint(11, (3, 4))
    there = torch.arange(4) < torch.tensor([[2], [4], [3]])
    inputs = torch.randint(11, (3, LENGTH))
    subject = Subject(model, AsIs(ENCODER_DECODER))
    found = weighted_norms(subject, Batch(inputs, prefix, None, VALID, prefix, there))
    assert len(found) == 3
    for layer, norms in found.items():
        rows = norms.pattern.sum(dim=-1)
        real = VALID if layer.path.startswith("encoder.") else there
        torch.testing.assert_close(rows, rearrange(real.float(), "b q -> b 1 q").expand_as(rows))
        assert torch.equal(norms.raw.sum(dim=-1) > 0, rows > 0)


def test_the_length_is_the_weight_times_that_of_what_the_head_makes_of_the_value():
    # Two heads share a value (3, 4): one passes it on as it is, one doubles it.
    output = torch.stack([torch.eye(2), 2 * torch.eye(2)])
    carried = transform_values(torch.tensor([[[[3.0, 4.0], [0.0, 1.0]]]]), output)
    assert carried.norm(dim=-1).tolist() == [[[5.0, 1.0], [10.0, 2.0]]]
    raw = torch.tensor([[[[0.25, 0.75]]]]) * carried[:, :1].norm(dim=-1)
    assert Norms(raw, raw).shares.tolist() == [[[[0.625, 0.375]]]]


def test_agreement_is_the_mean_of_each_rows_rank_correlation_over_what_it_sees():
    weights = torch.randn(2, 3, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    pattern = weights.softmax(dim=-1)
    pattern[1, :, 4] = 0
    raw = pattern * torch.rand(2, 3, 1, 5)
    found = Norms(raw, pattern).agreement
    for head in range(3):
        rows: Any = [
            spearmanr(pattern[b, head, q, : q + 1], raw[b, head, q, : q + 1])[0]
            for b in range(2)
            for q in range(1, 5 - b)
        ]
        assert float(found[head]) == pytest.approx(np.mean(rows), abs=1e-6)
    assert Norms(pattern, pattern).agreement.tolist() == pytest.approx([1, 1, 1])
    upside_down = torch.where(pattern > 0, 1 - pattern, 0)
    assert Norms(upside_down, pattern).agreement.tolist() == pytest.approx([-1, -1, -1])
    same = torch.full((1, 1, 4, 4), 0.25)
    assert Norms(same, same).agreement.isnan().all()


def test_a_model_without_such_heads_is_refused_and_one_with_them_is_as_it_was():
    _, subject, asked = made("latent")
    with refuses(LookupError, "evidence.norms.no_mixer"):
        weighted_norms(subject, asked)
    model, subject, asked = made()
    with torch.no_grad(), record_patterns(model) as before:
        model(*asked.model_inputs)
    model.train()
    found = weighted_norms(subject, asked)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for layer, pattern in before.items():
        counted = rearrange(VALID, "b q -> b 1 q 1")
        torch.testing.assert_close(found[layer].pattern, pattern * counted)

"""An edge or a head that is cut is gone, and nothing else is changed."""

import pytest
import torch

from attnlab.evidence.intervene import ablate, cut, heads
from attnlab.model.base import Model
from attnlab.tap import record

TEXT = "The animal didn't cross the street because it was too tired."
IT, ANIMAL = torch.tensor([7 + 1]), torch.tensor([1])


def encoded(model: Model, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().encode(inputs)[0][0]


def test_a_cut_edge_has_no_weight_and_the_rest_of_its_row_is_normalised_anew(experiment):
    made = experiment("depth=shallow")
    model, inputs = made.model, made.dataset.read(TEXT).inputs
    with record(model, "*.pattern") as whole:
        encoded(model, inputs)
    with cut(model, IT, ANIMAL), record(model, "*.pattern") as without:
        encoded(model, inputs)
    (before,), (after,) = whole.values(), without.values()
    expected = before.clone()
    expected[:, :, IT, ANIMAL] = 0
    expected /= expected.sum(dim=-1, keepdim=True)
    assert (before[:, :, IT, ANIMAL] > 0).all()
    assert (after[:, :, IT, ANIMAL] == 0).all()
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("variant", ["vanilla", "multihead", "moe"])
def test_without_the_edge_the_query_reads_as_if_the_key_were_not_there(experiment, variant):
    # One layer without positions: leaving the token out is another way to cut it.
    made = experiment("depth=shallow", "model/position=none", f"variant={variant}")
    model, inputs = made.model, made.dataset.read(TEXT).inputs
    left_out = encoded(model, torch.cat([inputs[:, :1], inputs[:, 2:]], dim=1))
    with cut(model, IT, ANIMAL):
        without = encoded(model, inputs)
    torch.testing.assert_close(without[IT], left_out[IT - 1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoded(model, inputs)[IT], without[IT], atol=1e-3)


def test_each_sequence_of_a_batch_has_its_own_edge(experiment):
    made = experiment()
    model, inputs = made.model, made.dataset.read(TEXT).inputs
    query, key = torch.tensor([8, 12]), torch.tensor([1, 3])
    with torch.no_grad(), cut(model.eval(), query, key):
        both = model.encode(inputs.repeat(2, 1))[0]
    for row in range(2):
        with cut(model, query[row, None], key[row, None]):
            torch.testing.assert_close(encoded(model, inputs), both[row])


def test_only_the_named_layers_and_heads_are_cut(experiment):
    made = experiment("depth=deep")
    with torch.no_grad():
        for weights in made.model.parameters():
            weights /= 3  # Sharper patterns of deep layers have weights of 0 by themselves.
    inputs, chosen = made.dataset.read(TEXT).inputs, {"layers": [1, 3], "heads": [2]}
    with cut(made.model, IT, ANIMAL, **chosen), record(made.model, "*.pattern") as patterns:
        encoded(made.model, inputs)
    gone = [p[0, :, int(IT), int(ANIMAL)] == 0 for p in patterns.values()]
    nothing, head = [False] * 4, [False, False, True, False]
    assert [layer.tolist() for layer in gone] == [nothing, head, nothing, head]


def test_an_ablated_head_is_one_whose_values_are_not_read(experiment):
    made = experiment("depth=shallow")
    model, inputs = made.model, made.dataset.read(TEXT).inputs
    with ablate(model, 0, [1, 3]):
        without = encoded(model, inputs)
    output = model.blocks[0].mixer.output.weight
    with torch.no_grad():
        for head in (1, 3):
            output[:, 16 * head : 16 * (head + 1)] = 0
    torch.testing.assert_close(without, encoded(model, inputs))


def test_a_position_without_attention_knows_itself_alone(experiment):
    made = experiment("depth=base")
    inputs = made.dataset.read(TEXT).inputs
    other = inputs.clone()
    other[0, 1] = 5
    with ablate(made.model, 0), ablate(made.model, 1):
        one, two = (encoded(made.model, tokens) for tokens in (inputs, other))
    assert torch.equal(one[2:], two[2:])
    assert not torch.allclose(one[1], two[1])


def test_the_model_is_what_it_was_afterwards(experiment):
    made = experiment()
    inputs = made.dataset.read(TEXT).inputs
    before = encoded(made.model, inputs)
    with cut(made.model, IT, ANIMAL), ablate(made.model, 0, [0]):
        assert not torch.equal(encoded(made.model, inputs), before)
    assert torch.equal(encoded(made.model, inputs), before)


def test_what_is_not_there_cannot_be_cut(experiment):
    made, lstm = experiment("objective.causal=true"), experiment("variant=lstm")
    inputs = made.dataset.read(TEXT).inputs
    for model, layers in ((made.model, [2]), (made.model, [-1]), (lstm.model, None)):
        with pytest.raises(LookupError, match="attention layers"), cut(model, IT, ANIMAL, layers):
            pass
    with pytest.raises(IndexError, match="has 4 heads"), ablate(made.model, 0, [4]):
        encoded(made.model, inputs)
    first = torch.tensor([0])
    with pytest.raises(ValueError, match="all that its query sees"), cut(made.model, first, first):
        encoded(made.model, inputs)
    assert heads(made.model) == [4, 4]
    assert heads(lstm.model) == []

"""An edge or a head that is cut is gone, and nothing else is changed."""

import pytest
import torch

from attnlab.experiment import Experiment
from attnlab.interp.attention_taps import all_heads, record_patterns, select_layers
from attnlab.interp.interventions import ablate, knock_out_edge, mean_patterns, prune
from attnlab.layers import HeadRef
from attnlab.model.base import Model
from tests.prose import refuses

TEXT = "The animal didn't cross the street because it was too tired."
IT, ANIMAL = torch.tensor([7 + 1]), torch.tensor([1])


def encoded(model: Model, inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().encode(inputs)[0][0]


def test_a_cut_edge_has_no_weight_and_the_rest_of_its_row_is_normalised_anew(experiment):
    made = experiment("depth=shallow")
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    with record_patterns(model) as whole:
        encoded(model, inputs)
    with knock_out_edge(model, IT, ANIMAL), record_patterns(model) as without:
        encoded(model, inputs)
    (before,), (after,) = whole.values(), without.values()
    expected = before.clone()
    expected[:, :, IT, ANIMAL] = 0
    expected /= expected.sum(dim=-1, keepdim=True)
    assert (before[:, :, IT, ANIMAL] > 0).all()
    assert (after[:, :, IT, ANIMAL] == 0).all()
    torch.testing.assert_close(after, expected)


@pytest.mark.parametrize("variant", ["vanilla", "moe"])
def test_without_the_edge_the_query_reads_as_if_the_key_were_not_there(experiment, variant):
    # One layer without positions: leaving the token out is another way to cut it.
    made = experiment("depth=shallow", "model/position=none", f"variant={variant}")
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    left_out = encoded(model, torch.cat([inputs[:, :1], inputs[:, 2:]], dim=1))
    with knock_out_edge(model, IT, ANIMAL):
        without = encoded(model, inputs)
    torch.testing.assert_close(without[IT], left_out[IT - 1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encoded(model, inputs)[IT], without[IT], atol=1e-3)


def test_each_sequence_of_a_batch_has_its_own_edge(experiment):
    made = experiment()
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    query, key = torch.tensor([8, 12]), torch.tensor([1, 3])
    with torch.no_grad(), knock_out_edge(model.eval(), query, key):
        both = model.encode(inputs.repeat(2, 1))[0]
    for row in range(2):
        with knock_out_edge(model, query[row, None], key[row, None]):
            torch.testing.assert_close(encoded(model, inputs), both[row])


def test_only_the_named_layers_and_heads_are_cut(experiment):
    made = experiment("depth=deep")
    with torch.no_grad():
        for weights in made.model.parameters():
            weights /= 3  # Sharper patterns of deep layers have weights of 0 by themselves.
    inputs, chosen = made.dataset.batch_of_text(TEXT).inputs, {"layers": [1, 3], "heads": [2]}
    with knock_out_edge(made.model, IT, ANIMAL, **chosen), record_patterns(made.model) as patterns:
        encoded(made.model, inputs)
    assert [layer.index for layer in patterns] == [0, 1, 2, 3]
    gone = [p[0, :, int(IT), int(ANIMAL)] == 0 for p in patterns.values()]
    nothing, head = [False] * 4, [False, False, True, False]
    assert [layer.tolist() for layer in gone] == [nothing, head, nothing, head]


def test_an_ablated_head_is_one_whose_values_are_not_read(experiment):
    made = experiment("depth=shallow")
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    with ablate(model, 0, [1, 3]):
        without = encoded(model, inputs)
    output = model.blocks[0].mixer.output.weight
    with torch.no_grad():
        for head in (1, 3):
            output[:, 16 * head : 16 * (head + 1)] = 0
    torch.testing.assert_close(without, encoded(model, inputs))


def test_a_position_without_attention_knows_itself_alone(experiment):
    made = experiment("depth=base")
    inputs = made.dataset.batch_of_text(TEXT).inputs
    other = inputs.clone()
    other[0, 1] = 5
    with ablate(made.model, 0), ablate(made.model, 1):
        one, two = (encoded(made.model, tokens) for tokens in (inputs, other))
    assert torch.equal(one[2:], two[2:])
    assert not torch.allclose(one[1], two[1])


def test_the_model_is_what_it_was_afterwards(experiment):
    made = experiment()
    inputs = made.dataset.batch_of_text(TEXT).inputs
    before = encoded(made.model, inputs)
    with knock_out_edge(made.model, IT, ANIMAL), ablate(made.model, 0, [0]):
        assert not torch.equal(encoded(made.model, inputs), before)
    assert torch.equal(encoded(made.model, inputs), before)


def test_what_is_not_there_cannot_be_cut(experiment):
    made, lstm = experiment("objective.causal=true"), experiment("variant=lstm")
    inputs = made.dataset.batch_of_text(TEXT).inputs
    for name, model, layers in (
        ("layer", made.model, [2]),
        ("layer_below_0", made.model, [-1]),
        ("no_layer", lstm.model, None),
    ):
        refusal = refuses(LookupError, f"evidence.intervene.{name}")
        with refusal, knock_out_edge(model, IT, ANIMAL, layers):
            pass
    with refuses(IndexError, "evidence.intervene.head"), ablate(made.model, 0, [4]):
        encoded(made.model, inputs)
    first = torch.tensor([0])
    with (
        refuses(ValueError, "evidence.intervene.whole_row"),
        knock_out_edge(made.model, first, first),
    ):
        encoded(made.model, inputs)
    assert all_heads(made.model) == [HeadRef(at, head) for at in (0, 1) for head in range(4)]
    assert all_heads(lstm.model) == []


def test_heads_of_several_layers_are_ablated_at_once(experiment):
    made = experiment("depth=base")
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    chosen = {0: [1, 3], 1: [2]}
    some = [HeadRef(0, 3), HeadRef(1, 2), HeadRef(0, 1)]
    with prune(model, some), record_patterns(model) as patterns:
        without = encoded(model, inputs)
    for layer, pattern in patterns.items():
        gone = [bool((head == 0).all()) for head in pattern[0]]
        assert gone == [head in chosen[layer.index] for head in range(4)]
    with ablate(model, 0, [1, 3]), ablate(model, 1, [2]):
        assert torch.equal(encoded(model, inputs), without)
    with prune(model, []):
        assert torch.equal(encoded(model, inputs), encoded(model, inputs))


def test_a_layer_without_any_head_is_a_layer_that_is_ablated(experiment):
    model, inputs = (made := experiment()).model, made.dataset.batch_of_text(TEXT).inputs
    with ablate(model, 1):
        expected = encoded(model, inputs)
    with prune(model, [head for head in all_heads(model) if head.layer == 1]):
        assert torch.equal(encoded(model, inputs), expected)


@pytest.mark.parametrize("causal", ["false", "true"])
def test_a_mean_pattern_counts_no_padding(experiment, causal):
    made = experiment(f"objective.causal={causal}")
    split = made.dataset.splits["validation"]
    found = mean_patterns(made.subject, [split[at : at + 16] for at in range(0, 60, 16)])
    whole = mean_patterns(made.subject, split)
    sums = {layer: torch.zeros_like(mean) for layer, mean in found.items()}
    counts = torch.zeros(split[0].inputs.shape[1])
    for index in range(len(split)):
        inputs, _, _, valid = split[index][:4]
        alone = inputs[:, : int(valid.sum())]
        with record_patterns(made.model) as patterns:
            encoded(made.model, alone)
        length = alone.shape[1]
        counts[:length] += 1
        for layer, pattern in patterns.items():
            sums[layer][:, :length, :length] += pattern[0]
    assert counts[-1] < counts[0] == 60
    assert list(found) == made.model.attention_layers()
    for layer, mean in found.items():
        expected = sums[layer] / counts.clamp(min=1)[:, None]
        torch.testing.assert_close(mean, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(whole[layer], mean, atol=1e-6, rtol=1e-5)
        assert mean.sum(dim=-1)[:, counts > 0].sub(1).abs().max() < 1e-5


@pytest.mark.parametrize("causal", ["false", "true"])
def test_a_head_with_its_mean_pattern_reads_but_does_not_choose(experiment, causal):
    made = experiment(f"objective.causal={causal}")
    model, objective, split = made.model, made.objective, made.dataset.splits["test"]
    means = mean_patterns(made.subject, split)
    asked = objective.training_batch(split[:8])
    with torch.no_grad(), record_patterns(model) as whole:
        before = model.eval()(*asked.model_inputs)[0]
    chosen = [HeadRef(0, 1), HeadRef(1, 2)]
    with torch.no_grad(), prune(model, chosen, means), record_patterns(model) as patterns:
        after = model(*asked.model_inputs)[0]
    assert not torch.allclose(before, after)
    at = torch.arange(asked.inputs.shape[1])
    for layer, pattern in patterns.items():
        replaced = {0: 1, 1: 2}[layer.index]
        for row, length in enumerate(asked.valid.sum(dim=1).tolist()):
            expected = means[layer][replaced].clone()
            expected[:, at >= length] = 0
            if causal == "true":
                expected = expected.tril()
            expected = (expected / expected.sum(dim=-1, keepdim=True))[:length]
            torch.testing.assert_close(pattern[row, replaced, :length], expected)
        if layer.index == 0:
            others = [head for head in range(4) if head != replaced]
            assert torch.equal(pattern[:, others], whole[layer][:, others])


def test_the_mean_of_one_sequence_is_its_own_pattern(experiment):
    made = experiment()
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    means = mean_patterns(made.subject, [made.dataset.batch_of_text(TEXT)])
    with prune(model, all_heads(model), means):
        torch.testing.assert_close(encoded(model, inputs), encoded(model, inputs))
        shorter = encoded(model, inputs[:, :-1])
    assert shorter.isfinite().all()


def test_what_has_no_place_in_a_mean_is_refused(experiment):
    made = experiment()
    model, inputs = made.model, made.dataset.batch_of_text(TEXT).inputs
    short = made.dataset.batch_of_text("it was wide.")
    means = mean_patterns(made.subject, [short])
    with refuses(ValueError, "evidence.intervene.beyond_the_mean"), ablate(model, 0, [1], means):
        encoded(model, inputs)
    with refuses(ValueError, "evidence.intervene.widths"):
        mean_patterns(made.subject, [short, made.dataset.batch_of_text(TEXT)])
    with refuses(ValueError, "evidence.intervene.no_reference"):
        mean_patterns(made.subject, [])


@pytest.mark.parametrize("data", ["dataset=reversal", "objective=autoencoder"])
def test_every_stack_of_an_encoder_and_a_decoder_has_means(composed, data):
    small = [f"dataset.num_{split}=20" for split in ("train", "validation", "test")]
    words = ["dataset=pronoun"] if "objective" in data else []
    made = Experiment(composed(*words, data, "evidence=none", "model.num_layers=1", *small))
    model, split = made.model, made.dataset.splits["test"]
    means = mean_patterns(made.subject, split)
    assert set(means) == set(model.attention_layers())
    (asked,) = made.subject.batches(split)
    with torch.no_grad(), prune(model, all_heads(model), means):
        assert model.eval()(*asked.model_inputs)[0].isfinite().all()


def test_heads_are_counted_in_the_order_of_the_models_modules(composed):
    words = ("dataset=pronoun", "objective=autoencoder", "evidence=none", "model.num_layers=1")
    made = Experiment(composed(*words, "dataset.num_train=20"))
    model, wide = made.model, "encoder.blocks.0.mixer.attend"
    model.get_submodule(wide).num_heads = 8  # pyright: ignore[reportArgumentType]
    layers = model.attention_layers()
    assert [layer.index for layer in layers] == [0, 1, 2, 3]
    assert [layer.num_heads for layer in layers] == [
        8 if layer.path == wide else 4 for layer in layers
    ]
    assert all_heads(model) == [head for layer in layers for head in layer.heads]
    # The encoder is heard first and named last.
    assert [layer.path for layer in layers].index(wide) > 0
    asked = made.objective.training_batch(made.dataset.splits["test"][:2])
    with torch.no_grad(), record_patterns(model) as patterns:
        model.eval()(*asked.model_inputs)
    assert next(iter(patterns)).path == wide


def test_layers_are_chosen_by_their_numbers_in_the_order_that_is_asked(experiment):
    model = experiment("depth=deep").model
    layers = model.attention_layers()
    assert select_layers(model) == layers
    assert select_layers(model, [2, 0]) == [layers[2], layers[0]]
    assert select_layers(model, []) == []

"""Gates are those of the library's cells: what follows from them is what the cells gave."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from attnlab.evidence.gates import LSTMGates
from attnlab.experiment import Experiment
from attnlab.interp.lstm_gates import compute_gates, gate_statistics
from attnlab.layers import LSTMLayer
from attnlab.split import Batch
from tests.prose import refuses
from tests.untrained import sharp

SMALL = (
    *("dataset.num_train=100", "dataset.num_validation=7", "dataset.num_test=20"),
    *("model.d_model=16", "model.num_layers=2", "evidence=none"),
)

CASES = {
    "causal": ("dataset=mqar", "dataset.length=24", "dataset.num_pairs=3", "variant=lstm"),
    "both ways": ("dataset=pronoun", "variant=lstm"),
    "encoder-decoder": ("dataset=reversal", "variant=lstm"),
    "mixer": ("dataset=pronoun", "variant=multihead", "model/mixer=lstm"),
}


@pytest.fixture(scope="module")
def built(composed) -> Callable[[str], Experiment]:
    """Make an untrained experiment whose gates move, with few examples."""

    @cache
    def make(case: str) -> Experiment:
        torch.manual_seed(0)
        return sharp(composed(*SMALL, *CASES[case]))

    return make


def asked_of(made: Experiment) -> Batch:
    split = made.dataset.splits["validation"]
    return made.objective.training_batch(
        split.batch(np.arange(7))._replace(noise_key=torch.arange(7))
    )


def outputs(made: Experiment, asked: Batch) -> dict[str, tuple]:
    """Give what the library's cells made: their states, and the last one of each sequence."""
    heard, handles = {}, []
    for path, layer in made.model.named_modules():
        if isinstance(layer, nn.LSTM):

            def hook(_layer, _given, result, path=path):
                heard[path] = result

            handles.append(layer.register_forward_hook(hook))
    with torch.no_grad():
        made.model.eval()(*asked.model_inputs)
    for handle in handles:
        handle.remove()
    return heard


@pytest.mark.parametrize("case", CASES)
def test_the_states_that_follow_from_gates_and_cells_are_the_librarys(built, case):
    made = built(case)
    asked = asked_of(made)
    found, heard = compute_gates(made.subject, asked), outputs(made, asked)
    assert list(found) == made.model.lstm_layers()
    assert {layer.path for layer in found} == set(heard)
    assert any(layer.is_reversed for layer in found) == (case != "causal")
    for layer, seen in found.items():
        hidden, (_, cell) = heard[layer.path]
        for b, valid in enumerate(seen.valid):
            real = valid.nonzero()[:, 0].tolist()
            there = real[::-1] if layer.is_reversed else real
            expected = hidden[b, there]
            torch.testing.assert_close(seen.hidden[b, real], expected, atol=1e-6, rtol=0)
            if len(real) == len(valid):
                last = real[0] if layer.is_reversed else real[-1]
                torch.testing.assert_close(seen.cell[b, last], cell[0, b], atol=2e-6, rtol=1e-6)
        for gate in (seen.input, seen.forget, seen.output):
            assert gate.shape == hidden.shape
            assert (gate >= 0).all()
            assert (gate <= 1).all()
    assert any(not seen.valid.all() for seen in found.values()) == (case != "causal")


def test_what_reads_backwards_stands_at_the_sequences_own_positions(built):
    made = built("both ways")
    asked = asked_of(made)
    assert asked.valid is not None
    changed = asked.inputs.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 20
    before = compute_gates(made.subject, asked)
    after = compute_gates(made.subject, asked._replace(inputs=changed))
    forwards, backwards = (
        ~torch.isclose(before[layer].cell, after[layer].cell).all(dim=-1) & asked.valid
        for layer in (
            LSTMLayer(0, "layers.0.forwards", False),
            LSTMLayer(0, "layers.0.backwards", True),
        )
    )
    # A changed token is felt where it stands, and by those that are read after it.
    assert not forwards[:, :3].any()
    assert not backwards[:, 4:].any()
    assert forwards[:, 3].all()
    assert backwards[:, :4].all()


@pytest.mark.parametrize("case", ["both ways", "mixer"])
def test_statistics_are_means_over_tokens_and_no_size_of_batches_moves_them(built, case):
    made = built(case)
    split, model = made.dataset.splits["test"], made.model.train()
    before = torch.get_rng_state()
    found = gate_statistics(made.subject, split)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    parted = gate_statistics(made.subject, split, batch_size=3)
    each = compute_gates(made.subject, made.objective.training_batch(split[0:20]))
    for path, units in found.items():
        for unit in (0, 7):
            rows = {name: [] for name in ("input", "forget", "output")}
            for b, s in each[path].valid.nonzero().tolist():
                for name, values in rows.items():
                    values.append(float(getattr(each[path], name)[b, s, unit]))
            for name, values in rows.items():
                shut = sum(value < 0.1 for value in values) / len(values)
                opened = sum(value > 0.9 for value in values) / len(values)
                assert float(units[f"{name}_left"][unit]) == pytest.approx(shut)
                assert float(units[f"{name}_right"][unit]) == pytest.approx(opened)
            mean = sum(rows["forget"]) / len(rows["forget"])
            assert float(units["forget"][unit]) == pytest.approx(mean)
            assert float(units["time"][unit]) == pytest.approx(1 / (1 - mean))
        for name, values in units.items():
            torch.testing.assert_close(parted[path][name], values, atol=1e-6, rtol=1e-6)


def test_a_bias_alone_decides_how_long_cells_remember(composed):
    made = Experiment(composed(*SMALL, *CASES["causal"]))
    for layer in made.model.modules():
        if isinstance(layer, nn.LSTM):
            for weights in layer.parameters():
                nn.init.zeros_(weights)
            # Input, forget, new and output, each of 16 units: remembers for about ten tokens.
            layer.bias_ih_l0.data[16:32] = math.log(9)  # pyright: ignore
            layer.bias_ih_l0.data[32:48] = 1.0  # pyright: ignore
            layer.bias_ih_l0.data[:16] = -5.0  # pyright: ignore
    found = LSTMGates(made.subject).measure().scalars
    for layer in ("layer0", "layer1"):
        assert found[f"{layer}/forget"] == pytest.approx(0.9)
        assert found[f"{layer}/time"] == pytest.approx(10, rel=1e-5)
        assert found[f"{layer}/input_left"] == 1
        assert found[f"{layer}/output_left"] == found[f"{layer}/output_right"] == 0
    cell = next(iter(compute_gates(made.subject, asked_of(made)).values())).cell[0, :, 0]
    new = math.tanh(1) / (1 + math.exp(5))
    grown = [new * (1 - 0.9 ** (t + 1)) / 0.1 for t in range(len(cell))]
    assert cell.tolist() == pytest.approx(grown, rel=1e-5)


def test_the_evidence_names_layers_and_ways(built):
    made = built("encoder-decoder")
    found = LSTMGates(made.subject, num_examples=9).measure().scalars
    layers = {name.split("/")[0] for name in found}
    # The decoder's two layers are counted before the encoder's two, as they stand in the model.
    both = [f"layer{n}{way}" for n in (2, 3) for way in ("", "_backwards")]
    assert layers == {"layer0", "layer1", *both}
    assert [layer.path for layer in made.model.lstm_layers()][::2] == [
        *("layers.0.forwards", "encoder.0.forwards", "encoder.1.forwards"),
    ]
    assert len(found) == 8 * len(layers)
    assert all(type(value) is float for value in found.values())
    assert all(found[f"{layer}/time"] >= 1 for layer in layers)


def test_the_evidence_is_that_of_the_statistics(built):
    made = built("both ways")
    found = LSTMGates(made.subject, num_examples=9).measure().scalars
    split = made.dataset.splits[made.dataset.report_split]
    units = gate_statistics(made.subject, split, num_examples=9)
    assert len(units) == 4
    for layer, of_units in units.items():
        key = f"layer{layer.path.split('.')[1]}" + "_backwards" * layer.path.endswith("backwards")
        for name, values in of_units.items():
            number = values.median() if name == "time" else values.mean()
            assert found[f"{key}/{name}"] == pytest.approx(float(number))


def test_what_has_no_lstm_has_no_gates(built, composed):
    made = built("causal")
    with refuses(ValueError, "evidence.gates.no_batches"):
        gate_statistics(made.subject, [])
    other = Experiment(composed(*SMALL, "dataset=pronoun", "variant=vanilla"))
    assert LSTMGates(other.subject).measure().scalars == {}
    with refuses(LookupError, "evidence.gates.no_lstm"):
        compute_gates(other.subject, asked_of(other))

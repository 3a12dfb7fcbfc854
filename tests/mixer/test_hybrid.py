"""A pattern of mixers over the layers: each layer is the mixer that its letter names."""

from functools import partial
from typing import Any

import pytest
import torch

from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.mixer.additive import Additive
from attnlab.mixer.base import Bidirectional
from attnlab.mixer.hybrid import Hybrid
from attnlab.mixer.lstm import LSTM
from attnlab.mixer.min_lstm import MinLSTM
from attnlab.mixer.multihead import MultiHead
from attnlab.mixer.short_convolution import ShortConvolution
from attnlab.position.base import Position
from tests.model.law import law
from tests.prose import keys_at_fault, refuses

D_MODEL, LENGTH = 16, 9
KINDS = {"a": LSTM, "b": partial(MultiHead, num_heads=2), "c": MinLSTM}
DATA = ["dataset=mqar", "dataset.num_train=200", "model.d_model=16"]
HYBRID = [*DATA, "model/mixer=hybrid"]


def built(layer: int, causal: bool = True, **knobs: Any) -> Any:
    given = {**KINDS, **knobs}
    return Hybrid(D_MODEL, Position(D_MODEL, LENGTH), causal, layer, **given).eval()


def layers(model: Any) -> list[type]:
    """The class of each layer's mixer; for one built twice, of what it is built of."""
    inner = [block.mixer.mixer for block in model.blocks]
    return [type(m.forwards) if isinstance(m, Bidirectional) else type(m) for m in inner]


def test_layer_i_is_what_letter_i_of_the_repeated_pattern_names():
    named = [type(built(layer, pattern="aabc").mixer) for layer in range(9)]
    four = [LSTM, LSTM, MultiHead, MinLSTM]
    assert named == [*four, *four, LSTM]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_is_its_mixer_and_nothing_else(layer):
    torch.manual_seed(5)
    hybrid = built(layer, pattern="abc")
    torch.manual_seed(5)
    alone = KINDS["abc"[layer]](D_MODEL, Position(D_MODEL, LENGTH), True).eval()
    x = torch.randn(2, LENGTH, D_MODEL)
    assert torch.equal(hybrid(x), alone(x))
    state: Any = None
    before: Any = None
    for at in range(LENGTH):
        (ours, state), (theirs, before) = (
            mixer.step(x[:, at : at + 1], at, kept)
            for mixer, kept in ((hybrid, state), (alone, before))
        )
        assert torch.equal(ours, theirs)
        assert hybrid.state_size(at + 1) == alone.state_size(at + 1)
    assert not hybrid.unidirectional


def test_where_all_may_be_seen_a_one_way_layer_reads_both_ways():
    recurrent, attending = (built(layer, False, pattern="abc").mixer for layer in (0, 1))
    assert isinstance(recurrent, Bidirectional)
    assert isinstance(attending, MultiHead)
    x = torch.randn(2, LENGTH, D_MODEL)
    valid = torch.arange(LENGTH) < torch.tensor([[LENGTH], [5]])
    for layer in (0, 1):
        mixer = built(layer, False, pattern="abc")
        together = mixer(x.masked_fill(~valid[..., None], 7.0), valid)[1:, :5]
        torch.testing.assert_close(together, mixer(x[1:, :5]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "pattern", "c"),
    [("unused", "ab", MinLSTM), ("unknown", "abd", None), ("empty", "", None)],
)
def test_a_pattern_of_other_letters_or_without_one_is_refused(key, pattern, c):
    with refuses(ValueError, f"mixer.hybrid.{key}"):
        built(0, pattern=pattern, c=c)


def test_by_default_an_lstm_lies_below_attention_which_alone_is_rotated(composed):
    model = Experiment(composed(*HYBRID, "model/position=rope", "model.num_layers=4")).model
    assert layers(model) == [LSTM, MultiHead, LSTM, MultiHead]


def test_the_command_line_fills_each_place_from_the_choices_and_sets_their_knobs(composed):
    config = composed(
        *HYBRID,
        "model/mixer@model.mixer.a=short_convolution",
        "model.mixer.a.kernel_size=3",
        "model/mixer@model.mixer.c=min_lstm",
        "model.mixer.c.expansion=2",
        "model.mixer.pattern=aacb",
        "model.num_layers=5",
    )
    model: Any = Experiment(config).model
    assert layers(model) == [ShortConvolution] * 2 + [MinLSTM, MultiHead, ShortConvolution]
    assert model.blocks[0].mixer.mixer.kernel_size == 3
    assert model.blocks[2].mixer.mixer.d_state == 32


@pytest.mark.parametrize(
    ("key", "overrides", "config_key"),
    [
        ("typo", ["model.mixer.b.num_haeds=3"], "model.mixer.b.num_haeds"),
        ("heads", ["model.mixer.b.num_heads=5"], "model.mixer.b.num_heads"),
        ("no_mixer", ["model.mixer.c=7"], "model.mixer.c"),
        (
            "unused_rotation",
            ["model/mixer@model.mixer.b=short_convolution", "model/position=rope"],
            "model.position",
        ),
    ],
)
def test_a_fault_inside_a_hybrid_is_told_with_its_key(composed, key, overrides, config_key):
    with refuses(ConfigError, f"mixer.hybrid.{key}") as refusal:
        composed(*HYBRID, *overrides)
    assert isinstance(refusal.value, ConfigError)
    assert keys_at_fault(refusal.value) == [config_key]


def test_a_bidirectional_lstm_lies_below_additive_attention_for_classification(composed):
    words = ["dataset=pronoun", "dataset.num_train=200", "model/mixer=lstm_additive"]
    model: Any = Experiment(composed(*words)).model
    assert isinstance(model.blocks[0].mixer.mixer, Bidirectional)
    assert layers(model) == [LSTM, Additive]


@law([("ab", 2), ("aaab", 4), ("abab", 2)])
def test_a_pattern_needs_so_many_layers_that_each_letter_comes(case):
    pattern, needed = case
    assert built(0, pattern=pattern, c=None).min_layers == needed


def test_layers_too_few_for_the_pattern_are_refused(composed):
    overrides = [*HYBRID, "model.mixer.pattern=aaab"]
    assert composed(*overrides, "model.num_layers=4")
    with refuses(ConfigError, "mixer.hybrid.too_few_layers"):
        composed(*overrides, "model.num_layers=3")

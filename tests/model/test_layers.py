"""What a model states of its layers is what a pass through it shows."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from attnlab.attend import Attend
from attnlab.interp.attention_taps import record_patterns
from attnlab.interp.attribution import mixing_matrices
from attnlab.layers import AttentionLayer, Axes, ExpertLayer, LSTMLayer, MixingLayer, SequenceName
from attnlab.mixer.base import Bidirectional, Mixer
from attnlab.model.base import DECODER, ENCODER, ENCODER_DECODER, Arrangement, Model
from attnlab.split import Batch
from attnlab.tap import Mixing, Tap, record
from tests.choices import choices
from tests.model.build import LENGTH, TOKENS, part, recurrent, transformer
from tests.model.law import law

LATENTS, PREFIX = 3, 5
BOTTLENECK = Arrangement(causal=False, encoder=True, latents=LATENTS)
SIZES: dict[SequenceName, int] = {"inputs": LENGTH, "prefix": PREFIX, "latents": LATENTS}
ARRANGEMENTS = {
    "causal": DECODER,
    "both ways": ENCODER,
    "encoder-decoder": ENCODER_DECODER,
    "latents": BOTTLENECK,
}


@cache
def arms() -> dict[str, Callable[[], Model]]:
    """Each mixer in each arrangement, each that can read between two stacks, and the recurrence."""
    mixers = choices("model/mixer")
    readers = [
        m
        for m in mixers
        if part("mixer", m).func.cross_attend is not Mixer.cross_attend and m != "hybrid"
    ]
    reading = {
        f"reads by {mixer}, {name}": partial(transformer, arrangement, cross=mixer)
        for mixer in readers
        for name, arrangement in (("encoder-decoder", ENCODER_DECODER), ("latents", BOTTLENECK))
    }
    mixing_inside = {
        f"{mixer}, {name}": partial(transformer, arrangement, mixer=mixer)
        for mixer in mixers
        for name, arrangement in ARRANGEMENTS.items()
    }
    return {
        **mixing_inside,
        **reading,
        "recurrent, causal": partial(recurrent, DECODER),
        "recurrent, encoder-decoder": partial(recurrent, ENCODER_DECODER),
        "lstm_attention, both ways": partial(recurrent, ENCODER, attention="additive"),
        "lstm_attention, encoder-decoder": partial(
            recurrent, ENCODER_DECODER, attention="multihead"
        ),
    }


@cache
def built(arm: str) -> Model:
    """Build an arm once; no law changes it."""
    torch.manual_seed(1)
    return arms()[arm]().eval()


def asked(model: Model) -> Batch:
    inputs, prefix = torch.randint(TOKENS, (1, LENGTH)), torch.randint(TOKENS, (1, PREFIX))
    return Batch(inputs, inputs, prefix=prefix if model.arrangement.encoder else None)


def sizes(layer: AttentionLayer | MixingLayer) -> tuple[int, int, int]:
    """The shape that a layer states: its heads, queries and keys."""
    return layer.num_heads, SIZES[layer.axes.queries], SIZES[layer.axes.keys]


def outermost(model: Model) -> list[str]:
    """Name the mixers that stand in no other one."""
    paths = [path for path, module in model.named_modules() if isinstance(module, Mixer)]
    return [p for p in paths if not any(p.startswith(f"{other}.") for other in paths)]


@law(arms)
def test_each_pattern_has_the_heads_and_sequences_that_its_layer_states(arm):
    model = built(arm)
    batch, layers = asked(model), model.attention_layers()
    if not layers:
        assert not any(isinstance(module, Attend) for module in model.modules())
        return
    with torch.no_grad(), record_patterns(model) as patterns:
        model(*batch.model_inputs)
    assert set(patterns) == set(layers)
    for layer, pattern in patterns.items():
        assert pattern.shape == (1, *sizes(layer)), layer
        assert layer.source == f"{layer.path}.pattern"
    with torch.no_grad(), record(model, "*.pattern") as heard:
        model(*batch.model_inputs)
    assert set(heard) == {layer.source for layer in layers}


@law(arms)
def test_each_matrix_has_the_heads_and_sequences_that_its_layer_states(arm):
    model = built(arm)
    batch, layers = asked(model), model.mixing_layers()
    matrices = mixing_matrices(model, batch)
    assert set(matrices) == set(layers)
    for layer, matrix in matrices.items():
        assert matrix.shape == sizes(layer), layer
        assert not layer.axes.crosses
        if layer.is_linear:
            assert isinstance(model.get_submodule(layer.source), Mixing)
            assert layer.source.startswith(f"{layer.path}.")
        else:
            assert layer.path in outermost(model)
            assert layer.source == f"{layer.path}.influence"
    linear = {layer.source for layer in layers if layer.is_linear}
    taps = {path for path, module in model.named_modules() if isinstance(module, Mixing)}
    assert linear == taps


@law(arms)
def test_layers_of_each_kind_are_counted_from_0_in_the_order_of_the_modules(arm):
    model = built(arm)
    order = [path for path, _ in model.named_modules()]
    lists = (model.attention_layers(), model.mixing_layers(), model.expert_layers())
    for layers in lists:
        assert [layer.index for layer in layers] == list(range(len(layers)))
        paths = [layer.path for layer in layers]
        assert paths == sorted(set(paths), key=order.index)
    cells = model.lstm_layers()
    assert [layer.path for layer in cells] == sorted((c.path for c in cells), key=order.index)
    indices = [layer.index for layer in cells]
    assert list(dict.fromkeys(indices)) == list(range(len(set(indices))))
    assert all(not layer.is_reversed or indices.count(layer.index) == 2 for layer in cells)
    for layer in model.attention_layers():
        assert [(head.layer, head.head) for head in layer.heads] == [
            (layer.index, head) for head in range(layer.num_heads)
        ]


@law(arms)
def test_every_outermost_mixer_attends_or_mixes_and_never_both(arm):
    model = built(arm)
    attending = [layer.path for layer in model.attention_layers()]
    mixed = [layer.path for layer in model.mixing_layers()]
    inside = {
        mixer: [
            [path for path in paths if f"{path}.".startswith(f"{mixer}.")]
            for paths in (attending, mixed)
        ]
        for mixer in outermost(model)
    }
    assert bool(inside) != arm.startswith("recurrent, ")
    for mixer, (attends, mixes) in inside.items():
        assert bool(attends) != bool(mixes), mixer
        both = isinstance(model.get_submodule(mixer), Bidirectional)
        assert len(mixes) in (0, 1, 2 if both else 1), mixer
    # Whatever attends or mixes stands in one of them.
    assert len(attending) + len(mixed) == sum(len(a) + len(m) for a, m in inside.values())


@law(arms)
def test_what_stands_inside_of_a_layer_works_on_the_same_sequences(arm):
    model = built(arm)
    for layer in (*model.attention_layers(), *model.mixing_layers()):
        for path, _ in model.get_submodule(layer.path).named_modules(prefix=layer.path):
            assert model.axes_at(path) == layer.axes


def test_the_layers_of_an_encoder_a_bottleneck_and_a_decoder_are_stated_in_full():
    def attends(index: int, path: str, axes: Axes) -> AttentionLayer:
        return AttentionLayer(index, f"{path}.attend", 4, axes)

    own, reads = Axes("prefix", "prefix"), Axes("prefix", "latents")
    assert transformer(BOTTLENECK, num_layers=1).attention_layers() == [
        attends(0, "blocks.0.mixer", own),
        attends(1, "blocks.0.cross", reads),
        attends(2, "encoder.blocks.0.mixer", Axes("inputs", "inputs")),
        attends(3, "bottleneck.cross", Axes("latents", "inputs")),
    ]
    both_ways = transformer(ENCODER, mixer="retention", num_layers=1)
    assert both_ways.attention_layers() == []
    assert both_ways.mixing_layers() == [
        MixingLayer(at, path, f"{path}.mixing", 4, Axes(), is_linear=True)
        for at, path in enumerate(("blocks.0.mixer.forwards", "blocks.0.mixer.backwards"))
    ]
    hybrid = transformer(DECODER, mixer="hybrid", num_layers=2)
    assert [layer.index for layer in hybrid.attention_layers()] == [0]
    assert [layer.index for layer in hybrid.mixing_layers()] == [0]


def test_experts_and_cells_of_an_encoder_are_counted_after_those_that_answer():
    experts = transformer(ENCODER_DECODER, ffn="moe", num_layers=1).expert_layers()
    assert experts == [ExpertLayer(0, "blocks.0.ffn", 8), ExpertLayer(1, "encoder.blocks.0.ffn", 8)]
    assert recurrent(ENCODER_DECODER, num_layers=1).lstm_layers() == [
        LSTMLayer(0, "layers.0.forwards", is_reversed=False),
        LSTMLayer(1, "encoder.0.forwards", is_reversed=False),
        LSTMLayer(1, "encoder.0.backwards", is_reversed=True),
    ]
    both_ways = transformer(ENCODER, mixer="lstm", num_layers=1)
    assert both_ways.expert_layers() == []
    assert [(layer.index, layer.is_reversed) for layer in both_ways.lstm_layers()] == [
        *((0, False), (0, True)),
    ]


@law(arms)
def test_the_vector_of_each_token_is_what_the_model_reads(arm):
    model = built(arm)
    assert model.token_vectors is not None
    heard: list[Any] = []
    assert isinstance(model.embedded, Tap)
    batch = asked(model)
    hook = model.embedded.register_forward_hook(lambda _, __, value: heard.append(value))
    with hook, torch.no_grad():
        model(*batch.model_inputs)
    assert torch.equal(heard[0], model.token_vectors[batch.inputs])

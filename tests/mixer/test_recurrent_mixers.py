"""The recurrent and convolutional mixers against the recurrences and sums that define them."""

import math

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from attnlab.mixer.base import Bidirectional, Mixer, build_mixer
from attnlab.mixer.long_convolution import LongConvolution, convolved
from attnlab.mixer.lstm import LSTM
from attnlab.mixer.min_lstm import MinLSTM
from attnlab.mixer.short_convolution import ShortConvolution
from attnlab.position.base import Position
from attnlab.recurrence.elementwise import scan
from tests.model.law import law
from tests.prose import refuses

D_MODEL, LENGTH = 16, 13
KINDS = (LSTM, MinLSTM, ShortConvolution, LongConvolution)


def built(kind: type[Mixer], causal: bool = True, **knobs) -> Mixer:
    mixer = build_mixer(
        lambda *wiring: kind(*wiring, **knobs), D_MODEL, Position(D_MODEL, LENGTH), causal, 0
    )
    return mixer.eval()


def stepped(mixer: Mixer, x: Tensor) -> tuple[Tensor, list[int]]:
    state, outputs, sizes = None, [], []
    for at in range(x.shape[1]):
        output, state = mixer.step(x[:, at : at + 1], at, state)
        outputs.append(output)
        assert all(len(part) == len(x) for part in tree_leaves(state))
        sizes.append(sum(part[0].numel() for part in tree_leaves(state)))
    return torch.cat(outputs, dim=1), sizes


def loop(decay: Tensor, update: Tensor, state: Tensor | None = None) -> Tensor:
    """The recurrence, one position after another, in float64."""
    states, before = [], torch.zeros_like(update[:, 0]) if state is None else state.double()
    for at in range(update.shape[1]):
        before = decay[:, at].double() * before + update[:, at].double()
        states.append(before)
    return torch.stack(states, dim=1)


@law((True, False))
def test_the_scan_equals_the_loop_at_every_length(carried):
    for length in range(1, 70):
        decay, update = torch.rand(2, length, 3), torch.randn(2, length, 3)
        state = torch.randn(2, 3) if carried else None
        states, last = scan(decay, update, state)
        torch.testing.assert_close(states.double(), loop(decay, update, state), rtol=0, atol=2e-6)
        assert torch.equal(last, states[:, -1])


def test_the_scan_bears_decays_of_every_strength():
    decays = torch.tensor([0.0, 1e-30, 1e-3, 0.5, 1 - 1e-6, 1.0, -0.9]).repeat(1, 3000, 1)
    decays[:, 1234] = 0
    update = torch.randn(1, 3000, 7)
    states, _ = scan(decays, update)
    expected = loop(decays, update)
    error = (states.double() - expected).abs().amax(dim=1) / expected.abs().amax(dim=1)
    assert (error < 1e-5).all()


def test_the_scan_goes_on_from_a_state_it_gave():
    decay, update = torch.rand(2, 20, 3), torch.randn(2, 20, 3)
    whole, _ = scan(decay, update)
    first, state = scan(decay[:, :7], update[:, :7])
    second, _ = scan(decay[:, 7:], update[:, 7:], state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, rtol=0, atol=1e-6)


def test_the_scans_gradients_are_those_of_the_loop():
    decay = torch.rand(2, 9, 3, dtype=torch.float64)
    decay[0, 4] = 0
    decay.requires_grad_()
    update = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, dtype=torch.float64)
    short = (decay[:1, :5, :2], update[:1, :5, :2], state[:1, :2])
    leaves = [part.detach().requires_grad_() for part in short]
    assert torch.autograd.gradcheck(scan, leaves)
    assert torch.autograd.gradgradcheck(scan, leaves)
    weights = torch.randn(2, 9, 3, dtype=torch.float64)
    ours = torch.autograd.grad((scan(decay, update, state)[0] * weights).sum(), (decay, update))
    theirs = torch.autograd.grad((loop(decay, update, state) * weights).sum(), (decay, update))
    torch.testing.assert_close(ours, theirs)


def test_the_scans_memory_is_linear_in_the_length():
    def kept(length: int) -> int:
        held = 0

        def count(part: Tensor) -> Tensor:
            nonlocal held
            held += part.numel()
            return part

        decay = torch.rand(1, length, 2, requires_grad=True)
        update = torch.randn(1, length, 2, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda part: part):
            scan(decay, update)
        return held

    assert kept(4096) == 8 * kept(512)


def test_the_lstm_equals_torchs_with_its_weights():
    mixer, reference = built(LSTM), nn.LSTM(D_MODEL, D_MODEL, batch_first=True)
    assert isinstance(mixer, LSTM)
    with torch.no_grad():
        for name, weights in reference.named_parameters():
            weights.copy_(mixer.cells.get_parameter(name))
    x = torch.randn(2, LENGTH, D_MODEL)
    hidden, (last, cell) = reference(x)
    torch.testing.assert_close(mixer(x), mixer.output(hidden))
    state = None
    for at in range(LENGTH):
        _, state = mixer.step(x[:, at : at + 1], at, state)
    assert state is not None
    torch.testing.assert_close(state, (last[0], cell[0]), rtol=0, atol=1e-6)


def test_the_minimal_lstm_equals_its_papers_loop():
    mixer = built(MinLSTM, expansion=2.0)
    assert isinstance(mixer, MinLSTM)
    with torch.no_grad():
        mixer.gates.weight.mul_(20)
    x = torch.randn(2, LENGTH, D_MODEL)
    mixer, x = mixer.double(), x.double()
    forget, update, candidate = mixer.gates(x).chunk(3, dim=-1)
    forget, update = forget.sigmoid(), update.sigmoid()
    total = forget + update
    expected = mixer.output(loop(forget / total, update / total * candidate))
    torch.testing.assert_close(mixer(x), expected)
    assert mixer.float()(x.float()).sub(expected).abs().max() < 1e-4


def test_the_minimal_lstm_bears_gates_that_vanish():
    mixer = built(MinLSTM)
    assert isinstance(mixer, MinLSTM)
    with torch.no_grad():
        mixer.gates.weight.zero_()
        # Both gates are exp(-500), which no float holds; their shares are 1/2.
        mixer.gates.bias.copy_(torch.tensor([-500.0, -500.0, 1.0]).repeat_interleave(D_MODEL))
    x = torch.randn(2, LENGTH, D_MODEL)
    states = (1 - 0.5 ** torch.arange(1, LENGTH + 1))[:, None].expand(-1, D_MODEL)
    torch.testing.assert_close(mixer(x)[0], mixer.output(states))
    mixer(x).sum().backward()
    assert all(torch.isfinite(w.grad).all() for w in mixer.parameters() if w.grad is not None)


@law((2, 4, LENGTH + 3))
def test_the_short_convolution_equals_torchs_padded_on_the_left(kernel_size):
    mixer = built(ShortConvolution, kernel_size=kernel_size)
    assert isinstance(mixer, ShortConvolution)
    reference = nn.Conv1d(D_MODEL, D_MODEL, kernel_size, groups=D_MODEL)
    bias = reference.bias
    assert bias is not None
    with torch.no_grad():
        reference.weight.copy_(rearrange(mixer.filter, "c k -> c 1 k"))
        bias.copy_(mixer.filter_bias)
    x = torch.randn(2, LENGTH, D_MODEL)
    padded = F.pad(rearrange(x, "b s d -> b d s"), (kernel_size - 1, 0))
    mixed = rearrange(reference(padded), "b d s -> b s d")
    expected = mixer.output(mixer.gate(x) * mixed)
    torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-6)


@law((1, 2, 7, 64))
def test_the_fourier_product_equals_the_sum_over_the_past(length):
    x, weights = torch.randn(2, length, 3), torch.randn(length, 3)
    expected = torch.zeros(2, length, 3, dtype=torch.float64)
    for at in range(length):
        for source in range(at + 1):
            expected[:, at] += weights[at - source].double() * x[:, source].double()
    torch.testing.assert_close(convolved(x, weights).double(), expected, rtol=0, atol=2e-5)
    exact = convolved(x.double(), weights.double())
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("hyena", [False, True])
def test_the_long_convolution_equals_its_papers_sum(hyena):
    knobs = {"timescale": 10, "num_waves": 3, "frequency": 3.0, "kernel_size": 3}
    mixer = built(LongConvolution, **knobs, hyena_filter=hyena)
    assert isinstance(mixer, LongConvolution)
    # What each hidden unit may learn in the authors' code, and is fixed in ours.
    frequency: float | torch.Tensor = 3.0
    if hyena:
        learned = mixer.filter.frequency
        assert isinstance(learned, torch.nn.Parameter)
        learned.data = torch.linspace(1, 5, 32)
        frequency = learned.double()
    waves = (1e-4, 1 + 0.5e-4, 2) if hyena else (1, 2, 3)
    x = torch.randn(1, LENGTH, D_MODEL)
    mixer, x = mixer.double(), x.double()
    projected = mixer.query_key_value(x)[0]
    short = mixer.short_bias.expand(LENGTH, -1).clone()
    for at in range(LENGTH):
        for back in range(min(3, at + 1)):
            short[at] = short[at] + mixer.short[:, 2 - back] * projected[at - back]
    query, key, value = short.chunk(3, dim=-1)
    part, expected = mixer.filter, []
    rates = math.log(100) * torch.linspace(1 / 1.5, 1 / 0.3, D_MODEL, dtype=torch.float64)
    for at in range(LENGTH):
        total = mixer.skip * key[at] * value[at]
        for source in range(at + 1):
            time = (at - source) / 10
            turns = [2 * math.pi * time * wave for wave in waves]
            seen = [time, *map(math.cos, turns), *map(math.sin, turns)]
            hidden = torch.tensor(seen, dtype=torch.float64)
            for linear in (part.first, part.second):
                hidden = torch.sin(frequency * linear(hidden))
            weights = part.last(hidden) * torch.exp(-rates * time)
            total = total + weights * key[source] * value[source]
        expected.append(mixer.output(query[at] * total))
    torch.testing.assert_close(mixer(x)[0], torch.stack(expected))


@law(KINDS)
def test_steps_give_what_forward_gives_and_keep_what_they_say(kind):
    mixer, x = built(kind), torch.randn(2, LENGTH, D_MODEL)
    outputs, sizes = stepped(mixer, x)
    torch.testing.assert_close(outputs, mixer(x), rtol=0, atol=1e-5)
    assert sizes == [mixer.state_size(at + 1) for at in range(LENGTH)]


@law(KINDS)
def test_a_shorter_sequence_gets_the_same_outputs(kind):
    mixer, x = built(kind), torch.randn(2, LENGTH, D_MODEL)
    torch.testing.assert_close(mixer(x[:, :5]), mixer(x)[:, :5], rtol=0, atol=1e-5)


@law(KINDS)
def test_a_one_way_mixer_is_built_twice_where_all_may_be_seen(kind):
    mixer = built(kind, causal=False)
    assert isinstance(mixer, Bidirectional)
    x = torch.randn(2, LENGTH, D_MODEL)
    expected = mixer.forwards(x) + mixer.backwards(x.flip(1)).flip(1)
    torch.testing.assert_close(mixer(x), expected)


@law(KINDS, (False, True))
def test_low_precision_is_close_to_float32(kind, step):
    mixer, x = built(kind), torch.randn(2, LENGTH, D_MODEL)
    exact = mixer(x).detach()
    run = (lambda m, x: stepped(m, x)[0]) if step else (lambda m, x: m(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(mixer, x).detach()
    pure = run(mixer.bfloat16(), x.bfloat16()).detach()
    for low in (mixed, pure):
        assert (low.float() - exact).abs().max() < 0.03 * exact.abs().max()


@law([MinLSTM, LongConvolution])
def test_what_is_summed_over_the_past_is_held_in_float32_under_autocast(kind):
    x = torch.randn(2, 1, D_MODEL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = built(kind).step(x, 0)
    last = state[-1] if isinstance(state, tuple) else state
    assert last.dtype is torch.float32


@law(KINDS)
def test_a_mixer_starts_as_its_docstring_says(kind):
    torch.manual_seed(0)
    mixer = kind(256, Position(256, LENGTH), True)
    within = {
        name: 1 / math.sqrt(weights.shape[1] if weights.ndim > 1 else 256)
        for name, weights in mixer.named_parameters()
    }
    if kind is ShortConvolution:
        within["filter_bias"] = 4**-0.5
    if kind is LongConvolution:
        within["short_bias"] = 3**-0.5
        within["filter.first.bias"] = (1 + 2 * 8) ** -0.5
        within["filter.second.bias"] = 32**-0.5
        assert float(mixer.get_parameter("skip").detach().std()) == pytest.approx(1, rel=0.15)
        del within["skip"]
    for name, bound in within.items():
        weights = mixer.get_parameter(name).detach()
        assert float(weights.abs().max()) <= bound, name
        # Five standard errors of the standard deviation of a uniform law.
        wanted = pytest.approx(bound / math.sqrt(3), rel=5 * math.sqrt(0.2 / weights.numel()))
        assert float(weights.std()) == wanted, name


@pytest.mark.parametrize(
    ("key", "kind", "knobs"),
    [
        ("expansion", MinLSTM, {"expansion": 0.01}),
        ("short_kernel", ShortConvolution, {"kernel_size": 1}),
        ("no_kernel", LongConvolution, {"kernel_size": 0}),
        ("timescale", LongConvolution, {"timescale": 0}),
        ("no_wave", LongConvolution, {"num_waves": 0}),
    ],
)
def test_an_impossible_knob_is_refused(key, kind, knobs):
    with refuses(ValueError, f"mixer.recurrent.{key}"):
        built(kind, **knobs)

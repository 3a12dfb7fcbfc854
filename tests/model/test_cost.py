"""FLOPs and parameters against closed forms."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from attnlab.ffn.mlp import MLP
from attnlab.ffn.moe import MoE
from attnlab.mixer.multihead import MultiHead
from attnlab.model.base import DECODER, ENCODER, active_parameters, parameters
from attnlab.model.block import PreNorm
from attnlab.model.cost import FORMULAS, flops
from attnlab.model.recurrent import Recurrent
from attnlab.model.transformer import Transformer
from attnlab.position.base import Position
from attnlab.position.learned import Learned
from tests.choices import choices
from tests.model.build import part
from tests.model.law import law

TOKENS, OUTPUTS, LENGTH, WIDTH, BATCH = 11, 6, 8, 16, 3


def transformer(ffn, arrangement=DECODER, num_layers: int = 2) -> Transformer:
    return Transformer(
        TOKENS, OUTPUTS, LENGTH, arrangement, mixer=MultiHead, position=Learned, ffn=ffn,
        block=PreNorm, num_layers=num_layers, d_model=WIDTH,
    )  # fmt: skip


def counted(run) -> int:
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        run()
    return counter.get_total_flops()


@law([DECODER, ENCODER])
def test_a_transformers_flops_are_its_products(arrangement):
    inputs = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    projections, ffn = 4 * WIDTH * WIDTH, 2 * WIDTH * 4 * WIDTH
    attention = 2 * LENGTH * WIDTH
    per_token = 2 * (2 * (projections + ffn + attention) + WIDTH * OUTPUTS)
    assert flops(transformer(MLP, arrangement), inputs) == BATCH * LENGTH * per_token


def test_active_experts_alone_are_counted():
    inputs = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    dense = flops(transformer(MLP, num_layers=1), inputs)
    sparse = flops(transformer(MoE, num_layers=1), inputs)
    # Two experts half as wide, and the router.
    assert sparse - dense == 2 * BATCH * LENGTH * WIDTH * 8


@law((DECODER, ENCODER), (torch.float32, torch.float64, torch.bfloat16))
def test_an_lstms_flops_are_its_products_fused_or_not(arrangement, dtype):
    model = Recurrent(TOKENS, OUTPUTS, LENGTH, arrangement, num_layers=2, d_model=WIDTH)
    inputs = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    ways = 1 if arrangement.causal else 2
    first, second = WIDTH + WIDTH, ways * WIDTH + WIDTH
    per_token = 2 * (4 * WIDTH * ways * (first + second) + ways * WIDTH * OUTPUTS)
    assert flops(model.to(dtype), inputs) == BATCH * LENGTH * per_token


@law((True, False), (True, False))
def test_cudas_fused_lstm_counts_as_the_cpus_does(bidirectional, batch_first):
    options = {"num_layers": 2, "bidirectional": bidirectional, "batch_first": batch_first}
    x = torch.zeros(BATCH, LENGTH, 6)
    on_cpu = counted(lambda: nn.LSTM(6, WIDTH, **options)(x))
    lstm = nn.LSTM(6, WIDTH, **options, device="meta")
    x = x.to("meta")
    state = torch.zeros(
        2 * (1 + bidirectional), x.shape[not batch_first], WIDTH, device="meta"
    )  # fmt: skip
    long_short_term = 2
    on_cuda = counted(
        lambda: torch.ops.aten._cudnn_rnn(
            *(x, list(lstm.parameters()), 4, None, state, state, long_short_term, WIDTH, 0, 2),
            *(batch_first, 0.0, False, bidirectional, [], None),
        )
    )
    assert on_cuda == on_cpu > 0


def test_a_grouped_product_counts_one_matrix_a_row():
    x, weights, ends = torch.zeros(10, 8), torch.zeros(3, 8, 16), torch.tensor([4, 4, 10])
    assert counted(lambda: F.grouped_mm(x, weights, offs=ends.int())) == 2 * 10 * 8 * 16


@law((torch.float32, torch.float64, torch.bfloat16), (True, False))
def test_fused_attention_counts_scores_and_mixing(dtype, biased):
    query = torch.zeros(BATCH, 4, 5, 8, dtype=dtype)
    key, value = (torch.zeros(BATCH, 4, 7, width, dtype=dtype) for width in (8, 8))
    bias = torch.zeros(5, 7, dtype=dtype) if biased else None
    run = lambda: F.scaled_dot_product_attention(query, key, value, bias)  # noqa: E731
    assert counted(run) == 2 * BATCH * 4 * 5 * 7 * (8 + 8)


def test_a_products_flops_do_not_hang_on_its_shape():
    matrix, vector = torch.zeros(5, 8), torch.zeros(8)
    assert counted(lambda: matrix @ vector) == counted(lambda: matrix @ vector[:, None]) == 80
    assert counted(lambda: vector @ vector) == 16
    added = torch.zeros(BATCH, 5, 6), torch.zeros(BATCH, 5, 8), torch.zeros(BATCH, 8, 6)
    assert counted(lambda: torch.baddbmm(*added)) == 2 * BATCH * 5 * 8 * 6
    pair = torch.zeros(BATCH, 5, 8), torch.zeros(BATCH, 6, 8)
    assert counted(lambda: torch.einsum("bqd,bkd->bqk", *pair)) == 2 * BATCH * 5 * 8 * 6


def test_a_convolution_of_each_channel_alone_counts_its_kernel():
    convolution = nn.Conv1d(WIDTH, WIDTH, kernel_size=4, groups=WIDTH, padding=3)
    x = torch.zeros(BATCH, WIDTH, LENGTH)
    assert counted(lambda: convolution(x)) == 2 * BATCH * WIDTH * 4 * (LENGTH + 3)


@law([True, False])
def test_a_triangular_solution_counts_a_square_for_each_right_hand_side(left):
    matrix = torch.eye(6).expand(BATCH, 6, 6)
    sides = torch.zeros(6, 5) if left else torch.zeros(5, 6)
    run = lambda: torch.linalg.solve_triangular(matrix, sides, upper=False, left=left)  # noqa: E731
    assert counted(run) == BATCH * 5 * 6**2


def test_a_fourier_transform_counts_5_n_log_n_and_a_real_one_half():
    x = torch.zeros(BATCH, 32, WIDTH)
    whole = BATCH * WIDTH * 5 * 32 * 5
    assert counted(lambda: torch.fft.fft(x.to(torch.complex64), dim=1)) == whole
    assert counted(lambda: torch.fft.ifft(x.to(torch.complex64), dim=1)) == whole
    assert counted(lambda: torch.fft.rfft(x, dim=1)) == whole // 2
    assert (
        counted(lambda: torch.fft.irfft(x[:, :17].to(torch.complex64), n=32, dim=1)) == whole // 2
    )
    # Padded to a length that is no power of two.
    odd = counted(lambda: torch.fft.rfft(x, n=48, dim=1))
    assert odd == pytest.approx(BATCH * WIDTH * 2.5 * 48 * math.log2(48), abs=1)


def products(layer: nn.Module) -> int:
    """Count the numbers of the matrices that every position meets."""
    matrices = [m.weight for m in layer.modules() if isinstance(m, nn.Linear)]
    cells = [m for m in layer.modules() if isinstance(m, nn.LSTM)]
    matrices += [p for cell in cells for p in cell.parameters() if p.ndim == 2]
    return sum(weights.numel() for weights in matrices)


@law(choices("model/mixer"), (True, False))
def test_a_mixers_flops_hold_each_of_its_matrices_and_grow_with_the_length(name, causal):
    short, long = 128, 256
    mixer = part("mixer", name)(WIDTH, Position(WIDTH, long), causal, 0)
    at_short, at_long = (flops(mixer, torch.zeros(1, length, WIDTH)) for length in (short, long))
    assert at_short >= 2 * short * products(mixer) > 0
    assert at_long >= 2 * at_short


@law(choices("model/ffn"))
def test_a_networks_flops_are_those_of_its_active_matrices(name):
    ffn = part("ffn", name)(WIDTH)
    biases = sum(p.numel() for p in ffn.parameters() if p.ndim == 1)
    active = parameters(ffn) - ffn.idle_parameters - biases
    for length in (64, 128):
        assert flops(ffn, torch.randn(2, length, WIDTH)) == 2 * 2 * length * active


def test_a_networks_flops_are_the_same_in_low_precision():
    """Where experts' runs are filled up to whole blocks, zeros count nothing."""
    x = torch.randn(2, 13, 32)
    for name in choices("model/ffn"):
        network = part("ffn", name)(32)
        with torch.autocast("cpu", torch.bfloat16):
            low = flops(network, x)
        assert low == flops(network, x), name


def test_counting_leaves_the_mode_as_it_was():
    model = transformer(MLP).train()
    flops(model, torch.zeros(1, LENGTH, dtype=torch.long))
    assert model.training


def test_active_parameters_leave_out_the_experts_that_a_token_does_not_use():
    dense, sparse = transformer(MLP), transformer(MoE)
    assert active_parameters(dense) == parameters(dense)
    per_expert = 2 * WIDTH * 2 * WIDTH
    assert parameters(sparse) - active_parameters(sparse) == 2 * 6 * per_expert

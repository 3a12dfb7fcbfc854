"""The attention mixers against other implementations and against their papers' equations."""

import cmath
import math
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from attnlab.ffn.swiglu import SwiGLU
from attnlab.mixer.additive import Additive
from attnlab.mixer.differential import Differential
from attnlab.mixer.grouped_query import GroupedQuery
from attnlab.mixer.latent import Latent
from attnlab.mixer.multihead import MultiHead
from attnlab.mixer.single_head import SingleHead
from attnlab.model.base import DECODER
from attnlab.model.block import PreNorm
from attnlab.model.transformer import Transformer
from attnlab.position.rope import RoPE
from tests.mixer.test_attention import LENGTH, WIDTH, build, padded, same

with_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="needs transformers (pip install attnlab[bench])"
)
# What transformers does at its import is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
# Short enough for the explicit path, and too long for it; either path does the other's mask as well
# (test_the_fused_and_the_explicit_path_agree).
SEEING = [(LENGTH, False), (66, True)]


def take(ours: Tensor, theirs: Any) -> None:
    """Copy weights into a layer or parameter of somebody else."""
    weights = getattr(theirs, "weight", theirs)
    with torch.no_grad():
        weights.copy_(ours)


def halves(weights: Tensor, d_head: int) -> Tensor:
    """Turn channels that rotate in neighbouring pairs into ones that rotate half a head apart."""
    return rearrange(weights, "(h pair two) ... -> (h two pair) ...", two=2, pair=d_head // 2)


def against(config: Any, theirs: Any, angles: Any, ours: nn.Module) -> None:
    """Compare with a causal layer of transformers, which wants its mask and angles from outside."""
    x, at = torch.randn(2, LENGTH, WIDTH), torch.arange(LENGTH)[None]
    future = torch.full((1, 1, LENGTH, LENGTH), -torch.inf).triu(1)
    told = {"position_embeddings": angles(config)(x, at), "attention_mask": future}
    same(ours(x), theirs.eval()(x, **told)[0])


def take_grouped_query(ours: GroupedQuery, theirs: Any) -> None:
    query, key, value = ours.query_key_value.weight.split(ours.widths)
    take(halves(query, ours.d_head), theirs.q_proj)
    take(halves(key, ours.d_head), theirs.k_proj)
    take(value, theirs.v_proj)
    take(ours.output.weight, theirs.o_proj)


@with_transformers
@pytest.mark.parametrize("normed", [False, True])
def test_grouped_query_attention_equals_llamas_and_qwens(normed):
    from transformers import LlamaConfig, Qwen3Config
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

    ours = build(GroupedQuery, True, RoPE, bias=False, query_key_norm=normed)
    sizes: Any = {
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "rms_norm_eps": 0.0,
        "attn_implementation": "eager",
    }
    config: Any = (Qwen3Config if normed else LlamaConfig)(**sizes)
    theirs: Any = (Qwen3Attention if normed else LlamaAttention)(config, 0)
    take_grouped_query(ours, theirs)
    if normed:
        take(halves(ours.get_parameter("query_norm.weight"), 4), theirs.q_norm)
        take(halves(ours.get_parameter("key_norm.weight"), 4), theirs.k_norm)
    against(config, theirs, LlamaRotaryEmbedding, ours)


@with_transformers
def test_a_decoder_of_our_parts_equals_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    ours = Transformer(
        *(13, 13, LENGTH, DECODER),
        mixer=partial(GroupedQuery, bias=False),
        position=RoPE,
        ffn=SwiGLU,
        block=partial(PreNorm, norm="rms"),
        num_layers=2,
        d_model=WIDTH,
    ).eval()
    sizes: Any = {
        "vocab_size": 13,
        "hidden_size": WIDTH,
        "intermediate_size": ours.get_parameter("blocks.0.ffn.gate.weight").shape[0],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        # nn.RMSNorm's own.
        "rms_norm_eps": torch.finfo(torch.float32).eps,
    }
    theirs: Any = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    with torch.no_grad():
        ours.get_parameter("head.bias").zero_()
        for name, weights in ours.named_parameters():
            if "norm" in name:
                weights.uniform_(0.5, 1.5)
    take(ours.embedding.weight, theirs.model.embed_tokens)
    take(ours.get_parameter("norm.weight"), theirs.model.norm)
    take(ours.get_parameter("head.weight"), theirs.lm_head)
    for block, layer in zip(ours.blocks, theirs.model.layers, strict=True):
        mixer = block.get_submodule("mixer")
        assert isinstance(mixer, GroupedQuery)
        take_grouped_query(mixer, layer.self_attn)
        take(block.get_parameter("mixer_norm.weight"), layer.input_layernorm)
        take(block.get_parameter("ffn_norm.weight"), layer.post_attention_layernorm)
        take(block.get_parameter("ffn.gate.weight"), layer.mlp.gate_proj)
        take(block.get_parameter("ffn.expand.weight"), layer.mlp.up_proj)
        take(block.get_parameter("ffn.contract.weight"), layer.mlp.down_proj)
    inputs = torch.randint(13, (2, LENGTH))
    same(ours(inputs)[0], theirs(inputs).logits)


@with_transformers
@pytest.mark.parametrize("query_rank", [None, 6])
def test_latent_attention_equals_deepseeks(query_rank):
    from transformers import DeepseekV2Config
    from transformers.models.deepseek_v2 import modeling_deepseek_v2 as deepseek

    ours = build(Latent, True, RoPE, kv_rank=6, query_rank=query_rank, d_rotary=2)
    sizes: Any = {
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": query_rank,
        "kv_lora_rank": 6,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 2,
        "v_head_dim": 4,
        "attn_implementation": "eager",
    }
    config = DeepseekV2Config(**sizes)
    theirs: Any = deepseek.DeepseekV2Attention(config, 0)
    take(ours.compress.weight, theirs.kv_a_proj_with_mqa)
    take(ours.norm.weight, theirs.kv_a_layernorm)
    expand = rearrange(ours.expand.weight, "(two h d) r -> (h two d) r", two=2, h=4)
    take(expand, theirs.kv_b_proj)
    take(ours.output.weight, theirs.o_proj)
    if query_rank is None:
        take(ours.get_parameter("query.weight"), theirs.q_proj)
    else:
        take(ours.get_parameter("query.0.weight"), theirs.q_a_proj)
        take(ours.get_parameter("query.1.weight"), theirs.q_a_layernorm)
        take(ours.get_parameter("query.2.weight"), theirs.q_b_proj)
    against(config, theirs, deepseek.DeepseekV2RotaryEmbedding, ours)


def turned(vector: Tensor, at: int) -> Tensor:
    """Rotate pairs of channels, one complex number after the other."""
    out = []
    for i in range(0, len(vector), 2):
        angle = at * 10_000.0 ** (-i / len(vector))
        pair = complex(vector[i], vector[i + 1]) * cmath.exp(1j * angle)
        out += [pair.real, pair.imag]
    return torch.tensor(out, dtype=torch.float64)


def softmax(scores: Sequence[float]) -> list[float]:
    weights = [math.exp(s - max(scores)) for s in scores]
    return [w / sum(weights) for w in weights]


def mean(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    return torch.stack([w * v for w, v in zip(weights, values, strict=True)]).sum(0)


def rms(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean() + eps).sqrt() * scale


@torch.no_grad()
def naive_latent(mixer: Latent, x: Tensor, causal: bool) -> Tensor:
    """DeepSeek-AI 2024, eq. 9-19 (V2-Lite: without eq. 12), one token and head at a time."""
    heads, d_head, rank = mixer.num_heads, mixer.d_head, mixer.kv_rank
    up_key, up_value = mixer.expand.weight.chunk(2)
    ask = rearrange(mixer.get_parameter("query.weight"), "(h d) m -> h d m", h=heads)
    latents, rotary, out = [], [], []
    for at, token in enumerate(x):
        down = mixer.compress.weight @ token
        latents.append(rms(down[:rank], mixer.norm.weight, 1e-6))
        rotary.append(turned(down[rank:], at))
    for at, token in enumerate(x):
        seen = range(at + 1 if causal else len(x))
        read = []
        for h in range(heads):
            asked, mine = ask[h] @ token, slice(h * d_head, (h + 1) * d_head)
            turn = turned(asked[d_head:], at)
            scores = [
                float(asked[:d_head] @ (up_key[mine] @ latents[t]) + turn @ rotary[t])
                / math.sqrt(d_head + mixer.d_rotary)
                for t in seen
            ]
            read.append(mean(softmax(scores), [up_value[mine] @ latents[t] for t in seen]))
        out.append(mixer.output.weight @ torch.cat(read))
    return torch.stack(out)


@torch.no_grad()
def naive_differential(mixer: Differential, x: Tensor, causal: bool, layer: int) -> Tensor:
    """Ye et al. 2024, eq. 1-3 and the head's norm, one token and head at a time."""
    heads, d = mixer.num_heads, WIDTH // mixer.num_heads // 2
    init = 0.8 - 0.6 * math.exp(-0.3 * ((layer + 1) - 1))
    query_1, query_2 = mixer.lambda_query
    key_1, key_2 = mixer.lambda_key
    weight = math.exp(query_1 @ key_1) - math.exp(query_2 @ key_2) + init
    query = x @ mixer.query.weight.T + mixer.query.bias
    key, value = (x @ mixer.key_value.weight.T + mixer.key_value.bias).chunk(2, dim=-1)
    out = []

    def part(heads: Tensor, which: int) -> Tensor:
        return heads[which * d : (which + 1) * d]

    for at in range(len(x)):
        seen = range(at + 1 if causal else len(x))
        read = []
        for h in range(heads):
            # Their `repeat_kv`: each key head, and each value head, serves successive queries.
            shared = heads // mixer.num_kv_heads
            one, other = (
                softmax(
                    [
                        float(part(query[at], which) @ part(key[t], which // shared)) / math.sqrt(d)
                        for t in seen
                    ]
                )
                for which in (2 * h, 2 * h + 1)
            )
            differences = [a - weight * b for a, b in zip(one, other, strict=True)]
            start = 2 * d * (h // shared)
            mixed = mean(differences, [value[t, start : start + 2 * d] for t in seen])
            read.append((1 - init) * rms(mixed, mixer.norm.weight, 1e-5))
        out.append(mixer.output.weight @ torch.cat(read) + mixer.output.bias)
    return torch.stack(out)


@torch.no_grad()
def naive_additive(mixer: Additive, x: Tensor, memory: Tensor, causal: bool) -> Tensor:
    """Bahdanau et al. 2015, eq. 5-6 with the alignment model of A.1.2, one pair at a time."""
    out = []
    for at, token in enumerate(x):
        seen = list(memory[: at + 1] if causal else memory)
        asked = mixer.query.weight @ token
        scores = [
            float(mixer.score.weight[0] @ torch.tanh(asked + mixer.key.weight @ h + mixer.key.bias))
            for h in seen
        ]
        out.append(mixer.output.weight @ mean(softmax(scores), seen) + mixer.output.bias)
    return torch.stack(out)


@pytest.mark.parametrize(("length", "causal"), SEEING)
def test_latent_attention_equals_the_papers_equations(length, causal):
    mixer = build(Latent, causal, RoPE)
    x = torch.randn(length, WIDTH)
    ours = mixer(x[None])[0]
    same(ours, naive_latent(mixer.double(), x.double(), causal))


@pytest.mark.parametrize(("length", "causal"), SEEING)
@pytest.mark.parametrize("num_kv_heads", [None, 2, 1])
def test_differential_attention_equals_the_papers_equations(length, causal, num_kv_heads):
    layer = 3 if causal else 0
    mixer = build(Differential, causal, layer=layer, num_heads=4, num_kv_heads=num_kv_heads)
    x = torch.randn(length, WIDTH)
    ours = mixer(x[None])[0]
    same(ours, naive_differential(mixer.double(), x.double(), causal, layer))


@pytest.mark.parametrize("causal", [True, False])
def test_additive_attention_equals_the_papers_equations(causal):
    mixer = build(Additive, causal)
    x = torch.randn(LENGTH, WIDTH)
    ours = mixer(x[None])[0]
    same(ours, naive_additive(mixer.double(), x.double(), x.double(), causal))


@pytest.mark.parametrize("kind", [SingleHead, MultiHead, GroupedQuery])
def test_reading_another_sequence_equals_torchs(kind):
    mixer = build(kind, False, RoPE, **({"num_kv_heads": 4} if kind is GroupedQuery else {}))
    theirs = nn.MultiheadAttention(WIDTH, mixer.num_heads, batch_first=True).eval()
    parts = ("query", "key", "value") if kind is SingleHead else ("query_key_value",)
    for name in ("weight", "bias"):
        ours = torch.cat([mixer.get_parameter(f"{part}.{name}") for part in parts])
        take(ours, theirs.get_parameter(f"in_proj_{name}"))
    theirs.out_proj.load_state_dict(mixer.output.state_dict())
    x, memory, valid = torch.randn(2, 5, WIDTH), torch.randn(2, LENGTH, WIDTH), padded(LENGTH, 4)
    expected, _ = theirs(x, memory, memory, key_padding_mask=~valid)
    read, state = mixer.cross_attend(x, memory, valid)
    same(read, expected)
    # The first query alone, with what was made of the memory.
    same(mixer.cross_attend(x[:, :1], memory, valid, state)[0], expected[:, :1])


def test_additive_reading_equals_the_papers_equations():
    mixer = build(Additive, False)
    x, memory, valid = torch.randn(2, 5, WIDTH), torch.randn(2, LENGTH, WIDTH), padded(LENGTH, 4)
    read, state = mixer.cross_attend(x, memory, valid)
    again, _ = mixer.cross_attend(x, memory, valid, state)
    assert torch.equal(again, read)
    mixer.double()
    for b, length in enumerate((LENGTH, 4)):
        expected = naive_additive(mixer, x[b].double(), memory[b, :length].double(), False)
        same(read[b], expected)

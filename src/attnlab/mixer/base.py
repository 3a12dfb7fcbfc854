"""What every mixer is, and what the attention mixers share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.attend import Attend
from attnlab.position.base import Position
from attnlab.tap import Mixing

State = Any
"""What `step` keeps of the earlier tokens: tensors, batch first."""


class Mixer(nn.Module, ABC):
    """A layer that moves information between positions: (batch, seq, d_model) to the same shape.

    Wiring: the objective sets `causal` (a position sees itself and earlier ones only); `layer` is
    the index of the layer, 0 for the lowest. All but the width has a default, so that a mixer
    stands alone as well, `MultiHead(64)`: causal, without positions, as the lowest layer.

    Evidence finds which position reads which by `pattern_modules`.

    Initialisation, where a class has no row of its own (nn.Linear is the library's default):
        *norm.weight | 1
        *norm.bias | 0
        * | U(1/sqrt(fan_in))
    """

    unidirectional: ClassVar[bool] = False
    """Reads from left to right only, whatever `causal` says; `build_mixer` adds one backwards."""
    position_inputs: ClassVar[frozenset[str]] = frozenset()
    """The signals of a position scheme that it uses: "rotate", "bias"."""
    min_layers: int = 1
    """The least number of layers at which every mixer that it was given is used."""

    def __init__(self, d_model: int, position: Position | None, causal: bool) -> None:
        super().__init__()
        if position is None:
            position = Position(d_model, 0)
        elif not isinstance(position, Position):
            raise TypeError(
                f"position: expected a scheme such as RoPE(d_model, max_length), or None, got "
                f"{position!r}; knobs are given by name, as in num_heads=4"
            )
        self.causal = causal
        # The model owns the scheme; a tuple keeps its parameters out of the mixer's own.
        self._position = (position,)

    @property
    def position(self) -> Position:
        return self._position[0]

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Mix the whole sequence; no position reads those that are not `valid` (padding)."""

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        """Mix the token at position `at` with the earlier ones, held in `state` (None at first).

        In evaluation mode the steps of a causal mixer return what its `forward` returns.
        """
        raise ValueError(f"{type(self).__name__} cannot run step by step")

    def state_size(self, length: int) -> int | None:
        """Count the numbers that `step` keeps for one sequence after `length` tokens.

        None for a mixer that cannot run step by step.
        """
        return None

    def cross_attend(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"],
        valid: Bool[Tensor, "batch source"] | None = None,
        state: State = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], State]:
        """Let each position read another sequence (cross-attention), whose padding is not `valid`.

        The returned state holds keys and values of `memory`, so that a decoder computes them once.
        """
        raise ValueError(f"{type(self).__name__} mixes one sequence and cannot read another")

    def pattern_modules(self) -> Mapping[str, Attend | Mixing]:
        """Return the modules that show which position reads which, by their paths in the mixer.

        An attention mixer has an `Attend` (`attnlab.attend`), whose rows sum to 1. A mixer that is
        linear in its values passes its matrix through a `Mixing` tap, as
        `attnlab.recurrence.base.mix` does. Both state their number of heads. If there is neither,
        the mixer is traced by the gradients of its outputs.

        By default it returns every `Attend` that the mixer holds, under whatever name, and every
        `Mixing` if there is no `Attend`. A mixer overrides it to leave out what is not its own
        reading of the sequence.
        """
        modules = modules_within(self)
        attends = {path: m for path, m in modules.items() if isinstance(m, Attend)}
        return attends or modules

    def require_cross_attention(self, knob: str) -> None:
        """Raise ValueError, naming the config's `knob`, if the mixer cannot read a sequence."""
        if type(self).cross_attend is Mixer.cross_attend:
            raise ValueError(
                f"{knob}={type(self).__name__} mixes one sequence and cannot read another; use "
                "multihead"
            )

    def require_document_mask(self) -> None:
        """Raise ValueError if the mixer cannot keep the documents of a sequence apart.

        One that can takes `documents` in `forward` and in `step`, the number of the document of
        each position that it reads, and lets no position read those of other documents.
        """
        methods = (self.forward, self.step)
        if not all("documents" in signature(method).parameters for method in methods):
            raise ValueError(
                f"objective.document_mask=true hides documents from each other, and "
                f"{type(self).__name__} reads all that stands before; use a mixer with a softmax "
                "over positions (multihead, grouped_query, sliding_window, ...), or no mask"
            )


def modules_within(module: nn.Module) -> dict[str, Attend | Mixing]:
    """Return each `Attend` and `Mixing` in a module, of a mixer in it those that it offers."""
    modules: dict[str, Attend | Mixing] = {}
    for name, child in module.named_children():
        if isinstance(child, Attend | Mixing):
            modules[name] = child
            continue
        inner = child.pattern_modules() if isinstance(child, Mixer) else modules_within(child)
        modules |= {f"{name}.{path}": inner_module for path, inner_module in inner.items()}
    return modules


class Bidirectional(Mixer):
    """Two unidirectional mixers, the second on the sequence backwards (Schuster & Paliwal 1997).

    Their outputs are added. A padded sequence is read backwards from its own last token. The taps
    of `backwards` pass tensors in that reversed order; `reversed_indices` returns it, and taking it
    twice restores the first order.
    """

    def __init__(self, forwards: Mixer, backwards: Mixer) -> None:
        super().__init__(0, forwards.position, causal=False)
        self.forwards, self.backwards = forwards, backwards

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        reversal = reversed_indices(x, valid)
        forwards = self.forwards(x, valid)
        return forwards + take_positions(
            self.backwards(take_positions(x, reversal), valid), reversal
        )


def build_mixer(
    mixer: Callable[..., Mixer], d_model: int, position: Position, causal: bool, layer: int
) -> Mixer:
    """Build a layer's mixer; a unidirectional one is made `Bidirectional` if not `causal`."""
    forwards = mixer(d_model, position, causal, layer)
    if causal or not forwards.unidirectional:
        return forwards
    return Bidirectional(forwards, mixer(d_model, position, causal, layer))


def reversed_indices(
    x: Float[Tensor, "batch seq width"], valid: Bool[Tensor, "batch seq"] | None
) -> Int[Tensor, "batch seq"]:
    """Return the indices that reverse each sequence, from its last valid token; padding stays."""
    positions = torch.arange(x.shape[1], device=x.device)
    if valid is None:
        return repeat(positions.flip(0), "s -> b s", b=len(x))
    return torch.where(valid, valid.sum(dim=1, keepdim=True) - 1 - positions, positions)


def take_positions(
    x: Float[Tensor, "batch seq width"], index: Int[Tensor, "batch place"]
) -> Float[Tensor, "batch place width"]:
    """Take positions of each sequence, in the order of its own row of `index`."""
    return x.gather(1, repeat(index, "b s -> b s w", w=x.shape[-1]))


PROBED = 8
"""Sequences on which it is tried which tokens reach which output, and usually their tokens."""
LEAK = 1e-4
"""Change of an output, as a share of the largest, that counts as none; float32 rounds at 1e-6."""


def later_tokens_reach_back(
    build: Callable[[], nn.Module],
    d_model: int,
    name: str,
    length: int = PROBED,
    verb: str = "mix",
) -> bool:
    """Return whether a later token changes an earlier output, tried on a copy with other weights.

    Raises ValueError, which calls the module by a `name`, if it cannot mix a sequence, or do with
    it what the `verb` says.
    """
    # The config check builds on the meta device, which computes nothing; the copy computes.
    device = torch.get_default_device()
    if device.type == "meta":
        # Some modules have kernels for a GPU alone.
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The check leaves the random state as it was for what is built after it.
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with forked, torch.no_grad(), device:
        # Each sequence has other tokens from a position of its own on.
        starts = torch.linspace(0, length - 1, PROBED).long()
        x = torch.randn(1, length, d_model).expand(PROBED, -1, -1).contiguous()
        is_changed = torch.arange(length) >= starts[:, None]
        changed = torch.where(is_changed[..., None], torch.randn(1, length, d_model), x)
        try:
            module = build().eval()
            # Projections that start at 0 would hide what reaches the output.
            for weights in filter(torch.is_floating_point, module.parameters()):
                weights.add_(torch.randn_like(weights), alpha=0.02)
            outputs = []
            for inputs in (x, changed):
                # What a module draws is the same for both.
                torch.manual_seed(0)
                outputs.append(module(inputs))
        except Exception as error:  # Somebody's module can fail in any way.
            raise ValueError(
                f"{name} cannot {verb} a tensor of shape {tuple(x.shape)} on the "
                f"{device.type}: {type(error).__name__}: {error}"
            ) from error
        output, changed_output = outputs
        if not isinstance(output, Tensor) or output.shape != x.shape:
            output_kind = (
                tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            )
            raise ValueError(
                f"{name} gives {output_kind} for a tensor of shape {tuple(x.shape)}; "
                "expected a tensor of the same shape; project it back, or wrap it"
            )
        if not output.isfinite().all() or not changed_output.isfinite().all():
            raise ValueError(f"{name} gives numbers that are not finite for normal ones")
        leak = (changed_output - output).abs().amax(dim=-1).masked_fill(is_changed, 0.0).max()
        return bool(leak > LEAK * output.abs().max())


class Attention(Mixer):
    """The parent of the attention mixers: projects, mixes in heads, merges, steps and reads."""

    position_inputs = frozenset({"rotate", "bias"})
    output: nn.Linear
    patterns_per_head: ClassVar[int] = 1
    """Number of patterns that a head has in the taps."""

    def __init__(
        self,
        d_model: int,
        position: Position | None,
        causal: bool,
        num_heads: int,
        dropout: float,
        d_rotated: int | None = None,
    ) -> None:
        super().__init__(d_model, position, causal)
        self.d_model, self.num_heads = d_model, num_heads
        self.position.prepare_heads(num_heads, d_rotated or d_model // num_heads)
        self.attend = Attend(causal, dropout, num_heads * self.patterns_per_head)

    @abstractmethod
    def project_query(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        """Return the queries, (batch, head, seq, d_head), before any rotation."""

    @abstractmethod
    def project_key_value(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        """Return keys and values, each (batch, head, seq, d_head), before any rotation."""

    def merge(
        self, heads: Float[Tensor, "batch head seq d_head"]
    ) -> Float[Tensor, "batch seq d_model"]:
        """Concatenate the heads and project them to d_model."""
        return self.output(rearrange(heads, "b h s d -> b s (h d)"))

    def project(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value of one sequence, query and key rotated to their positions."""
        query, (key, value) = self.project_query(x), self.project_key_value(x)
        return self.position.rotate(query, at), self.position.rotate(key, at), value

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        """Return the mixed values of each head, before `merge`."""
        return self.attend(query, key, value, bias, valid)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Mix the whole sequence; a position reads its own of the `documents` alone (None: all)."""
        positions = torch.arange(x.shape[1], device=x.device)
        # Padding comes last, where no earlier query sees it: unless the patterns are recorded, a
        # causal kernel needs no mask for it. The outputs at padding become 0 either way.
        key_valid = None if self.causal and not self.attend.has_listeners else valid
        mixed = self.merge(self._mix(*self.project(x, positions), positions, key_valid, documents))
        return mixed if valid is None else mixed.masked_fill(~rearrange(valid, "b s -> b s 1"), 0)

    def step(
        self,
        x: Float[Tensor, "batch 1 d_model"],
        at: int,
        state: State = None,
        documents: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        """Mix the token at position `at` with the earlier ones, of its document alone.

        `documents` has the numbers of the earlier positions' documents, and its own last.
        """
        if not self.causal:
            return super().step(x, at, state)
        query, key, value = self.project(x, torch.arange(at, at + 1, device=x.device))
        if state is not None:
            key, value = (torch.cat(pair, dim=-2) for pair in zip(state, (key, value), strict=True))
        key_positions = torch.arange(at + 1 - key.shape[-2], at + 1, device=x.device)
        mixed = self._mix(query, key, value, key_positions, None, documents)
        return self.merge(mixed), (key, value)

    def state_size(self, length: int) -> int:
        return 2 * length * self.d_model

    def cross_attend(
        self,
        x: Float[Tensor, "batch seq d_model"],
        memory: Float[Tensor, "batch source d_model"],
        valid: Bool[Tensor, "batch source"] | None = None,
        state: State = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], State]:
        key, value = self.project_key_value(memory) if state is None else state
        return self.merge(self.mix(self.project_query(x), key, value, None, valid)), (key, value)

    def _mix(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        positions: Tensor,
        valid: Tensor | None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Mix with keys at `positions`, the last of which are also those of the queries.

        The last `documents` are those of the keys.
        """
        num_queries, num_keys = query.shape[-2], key.shape[-2]
        bias = self.position.bias(self.num_heads, positions[-num_queries:], positions, self.causal)
        if documents is not None:
            documents = documents[:, -num_keys:]
            bias = hide_other_documents(bias, query, documents[:, -num_queries:], documents)
        return self.mix(query, key, value, bias, valid)


def hide_other_documents(
    bias: Float[Tensor, "*#batch head query key"] | None,
    query: Float[Tensor, "batch any_head query d_head"],
    query_documents: Int[Tensor, "batch query"],
    key_documents: Int[Tensor, "batch key"],
) -> Float[Tensor, "batch some_head query key"]:
    """Return a bias with -inf added wherever a query and a key are of different documents."""
    query_document = rearrange(query_documents, "b q -> b 1 q 1")
    is_other = query_document != rearrange(key_documents, "b k -> b 1 1 k")
    hidden = query.new_zeros(is_other.shape).masked_fill(is_other, -torch.inf)
    return hidden if bias is None else bias + hidden


class GroupedAttention(Attention):
    """Attention in heads of width d_model / num_heads, which may share keys and values.

    `query_key_norm` gives queries and keys an RMS norm over each head, with a learned scale, before
    they are rotated (Dehghani et al. 2023, sec. 2, who take layer norms; Yang et al. 2025, sec. 2).
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None,
        causal: bool,
        num_heads: int,
        num_kv_heads: int,
        dropout: float,
        bias: bool,
        query_key_norm: bool,
    ) -> None:
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} does not split into num_heads={num_heads} heads")
        if num_heads % num_kv_heads:
            raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
        super().__init__(d_model, position, causal, num_heads, dropout)
        self.d_head = d_model // num_heads
        self.widths = (d_model, num_kv_heads * self.d_head, num_kv_heads * self.d_head)
        self.query_key_value = nn.Linear(d_model, sum(self.widths), bias)
        self.output = nn.Linear(d_model, d_model, bias)
        norm = RMSNorm if query_key_norm else nn.Identity
        self.query_norm, self.key_norm = norm(self.d_head), norm(self.d_head)

    def project(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Split before the heads are: the gradients are then added up in one copy instead of two.
        query, key, value = map(
            self._split_heads, self.query_key_value(x).split(self.widths, dim=-1)
        )
        query, key = self.query_norm(query), self.key_norm(key)
        return self.position.rotate(query, at), self.position.rotate(key, at), value

    def project_query(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        return self.query_norm(self._split_heads(self._project_rows(x, slice(self.d_model))))

    def project_key_value(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        key, value = self._project_rows(x, slice(self.d_model, None)).chunk(2, dim=-1)
        return self.key_norm(self._split_heads(key)), self._split_heads(value)

    def state_size(self, length: int) -> int:
        return length * sum(self.widths[1:])

    def _project_rows(self, x: Tensor, rows: slice) -> Tensor:
        """Project with some rows of the joint matrix of query, key and value."""
        bias = self.query_key_value.bias
        return F.linear(x, self.query_key_value.weight[rows], None if bias is None else bias[rows])

    def _split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b s (h d) -> b h s d", d=self.d_head)


class RMSNorm(nn.RMSNorm):
    """RMS norm (Zhang & Sennrich 2019, eq. 4), computed in the precision of its scale."""

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return super().forward(x.to(self.weight)).to(x)

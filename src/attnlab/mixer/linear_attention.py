"""Linear attention."""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Width, ranged
from attnlab.recurrence import scalar
from attnlab.recurrence.base import exact, mix
from attnlab.tap import Mixing

EPSILON = 1e-6
"""Added to the normaliser, which may be 0; the paper's equations divide by it as it is."""


@ranged
class LinearAttention(Mixer):
    """Attends with a feature map in place of the softmax (Katharopoulos et al. 2020, eq. 8-12).

        S_t = S_{t-1} + f(k_t) v_t^T;  z_t = z_{t-1} + f(k_t);  f(x) = elu(x) + 1
        o_t = S_t^T f(q_t) / (z_t . f(q_t));  y_t = W_O o_t

    Where a position may see all, S and z are the sums over all (f is eq. 7). The tap `mixing` has
    the weight of v_s in o_t, f(q_t) . f(k_s) / (z_t . f(q_t)); its rows sum to 1.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        bias: bool = True,
    ) -> None:
        super().__init__(d_model, position, causal)
        if d_model % num_heads:
            raise ValueError(f"d_model={d_model} does not split into num_heads={num_heads} heads")
        self.d_model, self.num_heads = d_model, num_heads
        self.query_key_value = nn.Linear(d_model, 3 * d_model, bias)
        self.output = nn.Linear(d_model, d_model, bias)
        self.mixing = Mixing(num_heads)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        query, key, value = self._project(x)
        if valid is not None and not self.causal:
            key = key.masked_fill(~rearrange(valid, "b s -> b 1 s 1"), 0.0)

        def recur(value: Tensor) -> Tensor:
            if self.causal:
                return _divide_by_normaliser(scalar.scan(query, key, _append_ones(value), None)[0])
            return _divide_by_normaliser(scalar.everywhere(query, key, _append_ones(value)))

        return self._merge(mix(self.mixing, recur, value, valid))

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        if not self.causal:
            return super().step(x, at, state)
        query, key, value = self._project(x)
        summed, state = scalar.step(query, key, _append_ones(value), None, state)
        return self._merge(_divide_by_normaliser(summed)), state

    def state_size(self, length: int) -> int:
        return self.d_model * (self.d_model // self.num_heads + 1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.query_key_value(x).chunk(3, dim=-1)
        query, key, value = (
            rearrange(part, "b s (h d) -> b h s d", h=self.num_heads)
            for part in (_feature_map(query), _feature_map(key), value)
        )
        return query, key, value

    def _merge(self, mixed: Tensor) -> Tensor:
        return self.output(rearrange(mixed.to(self.output.weight), "b h s d -> b s (h d)"))


def _feature_map(x: Tensor) -> Tensor:
    # In low precision elu + 1 would round values near 0 away.
    return F.elu(exact(x)) + 1


def _append_ones(value: Tensor) -> Tensor:
    """Append a channel of ones to the values: the recurrence sums the normaliser in it."""
    return F.pad(value, (0, 1), value=1.0)


def _divide_by_normaliser(summed: Tensor) -> Tensor:
    """Divide the sums of values by the normaliser in their last channel."""
    return summed[..., :-1] / (summed[..., -1:] + EPSILON)

"""Gated linear attention."""

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.mixer.base import Mixer, State
from attnlab.position.base import Position
from attnlab.ranges import Expansion, Positive, Width, ranged
from attnlab.recurrence import channel
from attnlab.recurrence.base import exact, mix
from attnlab.tap import Mixing


@ranged
class GatedLinear(Mixer):
    """Lets the input decide how fast each key channel fades (GLA; Yang et al. 2023, sec. 4.4).

        S_t = diag(a_t) S_{t-1} + k_t v_t^T;  a_t = sigmoid(W_2 W_1 x_t + b)^(1 / temperature)
        o_t = S_t^T q_t;  y_t = W_O (swish(W_r x_t + b_r) * norm(o_t))

    The norm is over each head. The tap `mixing` has the weight of v_s in o_t.

    `scale_queries` divides queries by the root of d_key, as the authors' code does; the norm undoes
    that, but for its epsilon.
    """

    unidirectional = True

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        key_expansion: Expansion = 0.5,
        decay_rank: Width = 16,
        temperature: Positive = 16.0,
        scale_queries: bool = False,
    ) -> None:
        super().__init__(d_model, position, causal)
        d_keys = round(key_expansion * d_model)
        if d_model % num_heads or d_keys % num_heads or not d_keys:
            raise ValueError(
                f"d_model={d_model} and the keys' {d_keys} (key_expansion={key_expansion}) "
                f"do not both split into num_heads={num_heads} heads"
            )
        self.num_heads, self.d_keys, self.d_value = num_heads, d_keys, d_model // num_heads
        self.temperature = temperature
        self.scale = (d_keys // num_heads) ** -0.5 if scale_queries else 1.0
        self.query_key_value = nn.Linear(d_model, 2 * d_keys + d_model, bias=False)
        self.decay = nn.Sequential(
            nn.Linear(d_model, decay_rank, bias=False), nn.Linear(decay_rank, d_keys)
        )
        self.gate = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(self.d_value)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.mixing = Mixing(num_heads)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        query, key, value, log_decay = self._project(x)

        def recur(value: Tensor) -> Tensor:
            return channel.scan(query, key, value, log_decay)[0]

        return self._merge(mix(self.mixing, recur, value, valid), x)

    def step(
        self, x: Float[Tensor, "batch 1 d_model"], at: int, state: State = None
    ) -> tuple[Float[Tensor, "batch 1 d_model"], State]:
        mixed, state = channel.step(*self._project(x), state)
        return self._merge(mixed, x), state

    def state_size(self, length: int) -> int:
        return self.d_keys * self.d_value

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return query, key, value and log-decay, each (batch, head, seq, width)."""
        d_model = x.shape[-1]
        projections = self.query_key_value(x).split((self.d_keys, self.d_keys, d_model), dim=-1)
        log_decay = F.logsigmoid(exact(self.decay(x))) / self.temperature
        query, key, value, log_decay = (
            rearrange(part, "b s (h d) -> b h s d", h=self.num_heads)
            for part in (*projections, log_decay)
        )
        return self.scale * query, key, value, log_decay

    def _merge(self, mixed: Tensor, x: Tensor) -> Tensor:
        normed = self.norm(rearrange(mixed, "b h s d -> b s h d").to(self.output.weight))
        return self.output(F.silu(self.gate(x)) * rearrange(normed, "b s h d -> b s (h d)"))

"""Additive self-attention, and additive reading of another sequence."""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnlab.mixer.base import Attention
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, ranged


@ranged
class Additive(Attention):
    """Scores by a small network, v . tanh(W query + U key) (Bahdanau et al. 2015, eq. 5-6, A.1.2).

        a_ts = softmax over s of v . tanh(W x_t + U x_s + b);  y_t = W_O sum_s a_ts x_s

    Their annotations are the values, as they are; `output` projects what was read. One head. Time
    and memory grow with length^2 x d_model, for the network runs on every pair of positions. Of the
    biases inside the tanh one is enough. Rotations are not heard of: a score that is no scalar
    product would not depend on the distance alone.
    """

    position_inputs = frozenset({"bias"})

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(d_model, position, causal, 1, dropout)
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias)
        self.score = nn.Linear(d_model, 1, bias=False)
        self.output = nn.Linear(d_model, d_model, bias)

    def project_query(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        return self.query(x).unsqueeze(1)

    def project_key_value(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        return self.key(x).unsqueeze(1), x.unsqueeze(1)

    def project(
        self, x: Float[Tensor, "batch seq d_model"], at: Int[Tensor, " seq"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self.project_query(x), *self.project_key_value(x)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, valid: Tensor | None
    ) -> Tensor:
        pairs = rearrange(query, "b h q d -> b h q 1 d") + rearrange(key, "b h k d -> b h 1 k d")
        scores = rearrange(self.score(pairs.tanh()), "b h q k 1 -> b h q k")
        mask = self.attend.mask(query, key.shape[-2], bias, valid)
        return self.attend.mix_by_scores(scores if mask is None else scores + mask, value)

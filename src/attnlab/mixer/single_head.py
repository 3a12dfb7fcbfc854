"""Single-head self-attention."""

from jaxtyping import Float
from torch import Tensor, nn

from attnlab.mixer.base import Attention, RMSNorm
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, ranged


@ranged
class SingleHead(Attention):
    """Self-attention with one query, key and value per token (Vaswani et al. 2017, sec. 3.2.1).

        a_ts = softmax over s of q_t . k_s / sqrt(d_model);  y_t = W_O sum_s a_ts v_s

    Each token asks with its query, is found by its key, and gives its value. Our width of all three
    is `d_model`, so this is multi-head attention with one head.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
        query_key_norm: bool = False,
    ) -> None:
        super().__init__(d_model, position, causal, 1, dropout)
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.output = nn.Linear(d_model, d_model, bias)
        norm = RMSNorm if query_key_norm else nn.Identity
        self.query_norm, self.key_norm = norm(d_model), norm(d_model)

    def project_query(self, x: Float[Tensor, "batch seq d_model"]) -> Tensor:
        return self.query_norm(self.query(x)).unsqueeze(1)

    def project_key_value(self, x: Float[Tensor, "batch seq d_model"]) -> tuple[Tensor, Tensor]:
        return self.key_norm(self.key(x)).unsqueeze(1), self.value(x).unsqueeze(1)

"""Multi-head self-attention."""

from attnlab.mixer.base import GroupedAttention
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, Width, ranged


@ranged
class MultiHead(GroupedAttention):
    """Attends in parallel heads of width d_model / num_heads (Vaswani et al. 2017, sec. 3.2.2).

        a_ts = softmax over s of q_t . k_s / sqrt(d_head), in each head
        y_t = W_O (the heads' sum_s a_ts v_s, side by side)

    One matrix makes queries, keys and values of all heads.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
        query_key_norm: bool = False,
    ) -> None:
        super().__init__(
            d_model, position, causal, num_heads, num_heads, dropout, bias, query_key_norm
        )

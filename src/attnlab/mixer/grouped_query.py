"""Grouped-query self-attention."""

from attnlab.mixer.base import GroupedAttention
from attnlab.position.base import Position
from attnlab.ranges import ShareBelowOne, Width, ranged


@ranged
class GroupedQuery(GroupedAttention):
    """Lets groups of heads share keys and values (Ainslie et al. 2023, sec. 2.2).

        a_ts = softmax over s of q_t . k_s / sqrt(d_head), the k of the head's group
        y_t = W_O (the heads' sum_s a_ts v_s, side by side, the v of the group)

    Its ends are `num_kv_heads=1`, multi-query attention (Shazeer 2019, sec. 3), and one for each
    head, multi-head attention. The state shrinks by num_heads / num_kv_heads.
    """

    def __init__(
        self,
        d_model: int,
        position: Position | None = None,
        causal: bool = True,
        layer: int = 0,
        *,
        num_heads: Width = 4,
        num_kv_heads: Width = 2,
        dropout: ShareBelowOne = 0.0,
        bias: bool = True,
        query_key_norm: bool = False,
    ) -> None:
        super().__init__(
            d_model, position, causal, num_heads, num_kv_heads, dropout, bias, query_key_norm
        )

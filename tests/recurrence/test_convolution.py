"""The short convolution against the library's, and its steps against the whole."""

import torch
from einops import rearrange
from torch.nn import functional as F

from attnlab.recurrence.convolution import causal_convolution, convolution_step
from tests.model.law import law


@law((1, 2, 4, 9), (False, True))
def test_it_is_the_librarys_depthwise_convolution(width, shifted):
    x, weight = torch.randn(2, 7, 3), torch.randn(3, width)
    bias = torch.randn(3) if shifted else None
    padded = F.pad(rearrange(x, "b s c -> b c s"), (width - 1, 0))
    wanted = F.conv1d(padded, rearrange(weight, "c w -> c 1 w"), bias, groups=3)
    ours = causal_convolution(x, weight, bias)
    torch.testing.assert_close(ours, rearrange(wanted, "b c s -> b s c"))


@law((1, 4), (False, True))
def test_its_steps_are_the_whole_and_their_state_never_grows(width, shifted):
    x, weight = torch.randn(2, 7, 3), torch.randn(3, width)
    bias = torch.randn(3) if shifted else None
    state, steps = None, []
    for t in range(7):
        y, state = convolution_step(x[:, t : t + 1], weight, bias, state)
        assert state.shape == (2, width - 1, 3)
        steps.append(y)
    torch.testing.assert_close(torch.cat(steps, dim=1), causal_convolution(x, weight, bias))

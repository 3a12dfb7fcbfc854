"""The library's LSTM runs in bfloat16 also where oneDNN has none."""

import pytest
import torch
from torch import nn

from attnlab.recurrence import cells
from attnlab.recurrence.cells import Cells


def made() -> tuple[Cells, nn.LSTM, torch.Tensor]:
    torch.manual_seed(1)
    ours, theirs = Cells(8, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(3, 7, 8)


@pytest.fixture(params=[True, False])
def bfloat16(request, monkeypatch):
    """Whatever this CPU has, the other way is taken too, if it can be."""
    if request.param and not cells._has_bfloat16():
        pytest.skip("this CPU has no products in bfloat16")
    monkeypatch.setattr(cells, "_has_bfloat16", lambda: request.param)


def test_in_float32_they_are_the_librarys(bfloat16):
    ours, theirs, x = made()
    out, state = ours(x)
    expected, their_state = theirs(x)
    assert torch.equal(out, expected)
    again, _ = ours(x[:, :1], state)
    torch.testing.assert_close(again, theirs(x[:, :1], their_state)[0])


def test_autocast_stays_near_float32_and_has_gradients(bfloat16):
    ours, theirs, x = made()
    with torch.autocast("cpu", torch.bfloat16):
        out, state = ours(x.bfloat16())
        again, _ = ours(x[:, :1], state)
    torch.testing.assert_close(out.float(), theirs(x)[0], atol=0.02, rtol=0.02)
    assert again.shape == (3, 1, 8)
    out.float().sum().backward()
    assert all(weights.grad is not None for weights in ours.parameters())


def test_weights_in_bfloat16_give_bfloat16(bfloat16):
    ours, theirs, x = made()
    enabled = torch._C._get_mkldnn_enabled()
    out, _ = ours.bfloat16()(x.bfloat16())
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.float(), theirs(x)[0], atol=0.03, rtol=0.03)
    assert torch._C._get_mkldnn_enabled() == enabled

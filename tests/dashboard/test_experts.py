"""The page of experts has the loads of the record, and the balance that the model's report has."""

import re

import pytest
import torch

from attnlab.analysis.expert_loads import LoadAtStep, expert_loads
from attnlab.interp.expert_routing import Routing
from attnlab.run_record.record import Record
from tests.dashboard.recorded import STEPS, ask, recorded


def test_loads_are_those_of_rows_and_metrics(tmp_path):
    record = Record(recorded(tmp_path, "moe"))
    loads = expert_loads(record)
    (layer,) = loads.layers
    assert (loads.split, layer.layer, layer.name) == ("test", 0, "blocks.0.ffn")
    assert list(layer.history) == list(STEPS)
    rows = record.rows("validation").to_pylist()
    for row in rows:
        recorded_load = [row[f"blocks.0.ffn.load.{expert}"] for expert in range(4)]
        assert list(layer.history[row["step"]].load) == recorded_load
    assert layer.final is not None
    assert record.result is not None
    assert [record.result.metrics[f"test/blocks.0.ffn.load.{n}"] for n in range(4)] == list(
        layer.final.load
    )
    assert layer.final.dead == [0]


@pytest.mark.parametrize("load", [[0.25] * 4, [0.7, 0.3, 0.0, 0.0], [1.0]])
def test_balance_is_that_of_the_models_report(load):
    routing = object.__new__(Routing)
    object.__setattr__(routing, "load", torch.tensor(load))
    assert LoadAtStep(load, None).balance == pytest.approx(routing.balance, abs=1e-6)


def test_a_load_without_one_of_its_experts_is_none(tmp_path):
    metrics = {"test/accuracy": 0.5, "test/b.load.0": 0.5, "test/b.load.2": 0.5}
    record = Record(recorded(tmp_path, "multihead", metrics=metrics))
    assert expert_loads(record).layers == []


def test_the_page_draws_one_run_and_lists_all(tmp_path):
    for seed in range(3):
        recorded(tmp_path, "moe", seed)
    recorded(tmp_path, "multihead")
    page = ask(tmp_path).get("/experts?shown=mqar-moe-1x64-s2").text
    assert "<bdi>Layer 0 of experts</bdi>" in page
    assert "mqar-moe-1x64-s2, blocks.0.ffn: 4 experts." in page
    for seed in range(3):
        assert f'href="/experts?shown=mqar-moe-1x64-s{seed}"' in page
    assert re.search(r"Left out: has no experts: mqar-multihead-1x64-s0", page)
    assert "attnlab experts mqar-moe-1x64-s2" in page

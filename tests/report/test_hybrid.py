"""A page opens with the head that evidence chose, whatever stands between attention layers."""

import pytest

from attnlab.analysis.compare import compare
from attnlab.analysis.select import select_runs
from attnlab.cli import main
from attnlab.layers import HeadRef
from attnlab.report.arm_cards import arm_cards
from attnlab.report.probe_history import probe_histories
from attnlab.run_record.pattern_table import load_patterns, probe_names
from attnlab.run_record.record import find_runs

HYBRID = (
    *("dataset=pronoun", "model/mixer=hybrid", "model/mixer@model.mixer.a=short_convolution"),
    *("model.mixer.pattern=ab", "model.num_layers=4", "model.d_model=16", "debug=tiny"),
    *("dataset.num_train=100", "dataset.num_validation=60", "dataset.num_test=60"),
    *("trainer.threads=1", "trainer.accelerator=cpu"),
)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    """Train a hybrid whose attention is in its second and fourth block."""
    runs_dir = tmp_path_factory.mktemp("hybrid")
    assert main(["train", *HYBRID, f"runs_dir={runs_dir}"]) == 0
    (record,) = find_runs(runs_dir)
    return record


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_is_counted_among_the_attention_layers(hybrid, layer):
    (history,) = probe_histories(load_patterns(hybrid, probe=probe_names(hybrid)[0]))
    place = history.index_of_head(HeadRef(layer, 3))
    assert place is not None
    at, head = history.heads[place]
    attending = history.maps[at].layer
    assert attending is not None
    assert attending.path == f"blocks.{2 * layer + 1}.mixer.mixer.attend"
    assert history.maps[at].numbers[head] == 3
    assert history.head_name(place) == f"layer {layer}, head 3"
    assert history.index_of_head(HeadRef(2, 0)) is None


def test_a_card_opens_at_the_head_that_evidence_chose(hybrid):
    selection = select_runs([], hybrid.path.parent)
    heads = selection.results[hybrid.name].findings["pronoun"].heads
    chosen = heads.get("end", heads["it"]).head
    (panel,) = compare(selection.results)
    (card,) = arm_cards(panel, selection.records)
    (view,) = card.seed_views
    at, head = view.histories[0].heads[view.head_index]
    opened = view.histories[0].maps[at]
    assert view.is_chosen
    assert opened.layer is not None
    assert opened.layer.path.startswith(f"blocks.{2 * chosen.layer + 1}.")
    assert opened.numbers[head] == chosen.head


def test_layers_that_were_not_recorded_keep_their_numbers(hybrid):
    """Where the recorder kept the last layer alone, nobody takes it for the first."""
    recorded_patterns = load_patterns(hybrid, probe=probe_names(hybrid)[0])
    (history,) = probe_histories([p for p in recorded_patterns if "blocks.1." not in p.source])
    assert history.index_of_head(HeadRef(0, 0)) is None
    place = history.index_of_head(HeadRef(1, 0))
    assert place is not None
    assert history.head_name(place) == "layer 1, head 0"

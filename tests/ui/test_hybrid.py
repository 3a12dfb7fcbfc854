"""A page opens with the head that evidence chose, whatever stands between attention layers."""

import pytest

from attnlab.cli import main
from attnlab.runs.compare import compare
from attnlab.runs.patterns import probes, recorded
from attnlab.runs.record import find_runs
from attnlab.runs.select import select
from attnlab.ui.cards import cards
from attnlab.ui.films import films

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
    probe = probes(hybrid)[0]
    (film,) = films(list(recorded(hybrid, probe=probe)), "pronoun")
    place = film.head_at(layer, 3)
    assert place is not None
    source, head = film.heads[place]
    assert film.sources[source].name == f"blocks.{2 * layer + 1}.mixer.mixer.attend.pattern"
    assert film.sources[source].numbers[head] == 3
    assert film.head_name(place) == f"layer {layer}, head 3"
    assert film.head_at(2, 0) is None


def test_a_card_opens_at_the_head_that_evidence_chose(hybrid):
    selection = select([], hybrid.path.parent)
    measured = selection.results[hybrid.name]["metrics"]
    (panel,) = compare(selection.results)
    (card,) = cards(panel, selection.records)
    (take,) = card.takes
    source, head = take.films[0].heads[take.head]
    chosen = [
        measured[f"pronoun/end_{key}" if "pronoun/end_head" in measured else f"pronoun/{key}"]
        for key in ("layer", "head")
    ]
    assert take.chosen
    assert take.films[0].sources[source].name.startswith(f"blocks.{2 * int(chosen[0]) + 1}.")
    assert take.films[0].sources[source].numbers[head] == chosen[1]


def test_layers_that_were_not_recorded_keep_their_numbers(hybrid):
    """Where the recorder kept the last layer alone, nobody takes it for the first."""
    layers = [f"blocks.{block}.mixer.mixer.attend" for block in (1, 3)]
    patterns = [p for p in recorded(hybrid, probe=probes(hybrid)[0]) if "blocks.1." not in p.source]
    (film,) = films(patterns, "pronoun", layers)
    assert film.head_at(0, 0) is None
    place = film.head_at(1, 0)
    assert place is not None
    assert film.head_name(place) == "layer 1, head 0"

"""Every dataset of conf/ goes through a whole run: trained, judged on all its splits, recorded."""

from pathlib import Path

import pytest

from attnlab.cli import main
from attnlab.run_record.record import find_runs
from tests.choices import choices, composed_keys, dataset_words
from tests.dataset.stated import builds_on_another

SMALL = (
    "debug=tiny",
    "trainer.max_steps=4",
    "evidence=none",
    "trainer.threads=1",
    "callbacks.recorder.num_probes=2",
)


# One that builds on another differs in its knobs; tests/dataset holds it to its laws.
NAMES = [
    pytest.param(name, marks=pytest.mark.soak if builds_on_another(name) else pytest.mark.slow)
    for name in choices("dataset")
]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_on_a_dataset_ends_with_its_metrics(name, tmp_path: Path, capsys):
    words = dataset_words(name)
    if "num_train" in composed_keys(name):
        words += [f"dataset.num_{k}=128" for k in ("train", "validation", "test")]
    elif name == "mqar_based":
        pytest.skip("as many parts of mqar take minutes to draw")
    assert main(["train", *words, *SMALL, f"runs_dir={tmp_path}"]) == 0, capsys.readouterr().err
    (record,) = find_runs(tmp_path)
    assert record.result is not None
    metrics, dataset = record.result.metrics, record.result.identity["dataset"]
    assert {key.split("/")[0] for key in metrics} >= {"validation"}
    named = [f"test_{length}" for length in dataset.get("test_lengths", [])]
    if name == "mixture":
        named = ["test_recall", "test_induction"]
    for split in ("validation", *named):
        assert metrics[f"{split}/loss"] > 0
    assert len(record.result.data_hash) == 64
    learnt = "tokenizer.bpe.BPE" in str(dataset)
    assert (record.path / "attempts/1/tokenizer.json").is_file() == learnt

"""Recorders and Lightning callbacks of the user's own are run in their order, or refused."""

import io
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from attnlab.callbacks.base import Recorder, Row
from attnlab.callbacks.cadence import Cadence
from attnlab.cli import main
from attnlab.config import compose, search_path
from attnlab.config.callbacks import build_recorders, lightning_callback_names
from attnlab.errors import ConfigError
from attnlab.experiment import Experiment
from attnlab.interp.subject import Subject
from attnlab.run_record.checkpoint import newest_checkpoint
from attnlab.run_record.identity import identity_hash
from attnlab.run_record.record import Record, find_runs, hash_in_name
from tests.child import TINY
from tests.prose import says

ROOT = Path(__file__).parents[2]
HEARD: list[tuple[str, int]] = []


class Counts(pl.Callback):
    """Counts steps, and goes on counting where a run was resumed."""

    def __init__(self, name: str, every: int = 1) -> None:
        self.name, self.every, self.count = name, every, 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        self.count += self.every
        HEARD.append((self.name, self.count))

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.count = state_dict["count"]

    @property
    def state_key(self) -> str:
        return self.name


class NoCallback:
    """Something else."""


class Fails(pl.Callback):
    """Cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no such device")


class Exits(pl.Callback):
    """Ends the program where it is made."""

    def __init__(self) -> None:
        sys.exit(4)


class Norms(Recorder):
    """Records how long the vectors of all weights are together, every few steps."""

    table = "norms"

    def __init__(self, subject: Subject, *, every: int = 3) -> None:
        super().__init__(subject)
        if every > 100:
            raise ValueError(f"every={every} is rarer than any run is long")
        self.every = every

    def is_due(self, cadence: Cadence, step: int) -> bool:
        return step % self.every == 0

    def rows(self, step: int) -> list[Row]:
        squares = [float(w.detach().square().sum()) for w in self.subject.model.parameters()]
        return [{"step": step, "norm": sum(squares) ** 0.5}]


class Heavy(Norms):
    """Is a part of what is compared."""

    table = "heavy"
    in_identity = True


class Nameless(Norms):
    """Says of no table that it writes it."""

    table = None  # pyright: ignore[reportAssignmentType]


class Trains(Norms):
    """Would write what training writes."""

    table = "train"


class Nested(Norms):
    """Would write outside of its attempt."""

    table = "my/table"


COUNTS = f"{__name__}.Counts"
OF_VECTORS = "attnlab.callbacks.vectors.VectorRecorder"
NORMS: dict[str, object] = {"_target_": f"{__name__}.Norms", "_partial_": True, "every": 3}


def configs(directory: Path, **callbacks: object) -> Path:
    (directory / "callbacks").mkdir(parents=True, exist_ok=True)
    content = {"defaults": ["default"], **callbacks}
    (directory / "callbacks/mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return directory


def two(directory: Path) -> Path:
    first = {"_target_": COUNTS, "name": "first", "every": 2}
    return configs(directory, z_first=first, a_second={"_target_": COUNTS, "name": "second"})


def train(directory: Path, *words: str) -> int:
    where = [f"runs_dir={directory / 'runs'}", "--config-dir", str(directory / "mine")]
    return main(["train", *TINY, *where, "callbacks=mine", *words])


def test_callbacks_run_in_the_order_of_their_yaml_before_the_step_is_saved(tmp_path):
    two(tmp_path / "mine")
    HEARD.clear()
    assert train(tmp_path) == 0
    names = [name for name, _ in HEARD]
    assert names == ["first", "second"] * 18
    assert HEARD[-2:] == [("first", 36), ("second", 18)]
    # What they counted at a step is in the checkpoint of that step.
    (record,) = find_runs(tmp_path / "runs")
    checkpoint, _ = newest_checkpoint(record.path)
    assert checkpoint is not None
    state = torch.load(io.BytesIO(checkpoint.content), weights_only=True)["callbacks"]
    assert state["second"] == {"count": 18}


def test_a_callback_is_part_of_the_identity_unless_its_yaml_says_otherwise(tmp_path):
    def identity(**callbacks: object):
        with search_path(configs(tmp_path, **callbacks)) as own:
            return Experiment(compose([*TINY, "callbacks=mine"], own)).identity

    counts = {"_target_": COUNTS, "name": "a"}
    plain = identity()
    assert identity(a=counts)["callbacks"] == {**plain["callbacks"], "a": counts}
    assert identity(a={**counts, "_in_identity_": False}) == plain
    stated = {**counts, "_in_identity_": True}
    assert identity(a=stated)["callbacks"]["a"] == stated


def test_a_recorder_of_ones_own_writes_a_table_of_the_record(tmp_path):
    configs(tmp_path / "mine", norms=NORMS)
    assert train(tmp_path) == 0
    (record,) = find_runs(tmp_path / "runs")
    rows = record.rows("norms").to_pylist()
    assert [row["step"] for row in rows] == [0, 3, 6, 9]
    checkpoint, _ = newest_checkpoint(record.path)
    assert checkpoint is not None
    state = torch.load(io.BytesIO(checkpoint.content), weights_only=True)["state_dict"]
    last = sum(float(weights.square().sum()) for weights in state.values()) ** 0.5
    assert rows[-1]["norm"] == pytest.approx(last, rel=1e-5)
    # The others record beside it, and the run is the one without it.
    assert record.rows("patterns").num_rows
    assert main(["train", *TINY, f"runs_dir={tmp_path / 'plain'}"]) == 0
    (plain,) = find_runs(tmp_path / "plain")
    assert hash_in_name(plain.name) == hash_in_name(record.name)
    for table in ("train", "validation", "patterns", "heads", "vectors"):
        assert (
            plain.rows(table)
            .drop_columns(timed(plain, table))
            .equals(record.rows(table).drop_columns(timed(record, table)))
        ), table


def timed(record: Record, table: str) -> list[str]:
    """Name the columns that tell the time, which no two runs share."""
    return [name for name in record.rows(table).column_names if "second" in name or name == "at"]


def test_recorders_stand_in_the_order_of_their_config_each_of_the_one_subject(tmp_path):
    with search_path(configs(tmp_path, norms=NORMS)) as own:
        experiment = Experiment(compose([*TINY, "callbacks=mine"], own))
    subject = experiment.subject
    made = build_recorders(experiment.config, subject)
    assert [recorder.table for recorder in made] == ["patterns", "heads", "vectors", "norms"]
    assert {id(recorder.subject) for recorder in made} == {id(subject)}
    assert isinstance(made[-1], Norms)
    assert lightning_callback_names(experiment.config.values["callbacks"], own) == []


def test_no_recorder_is_part_of_the_identity_unless_its_class_says_so(tmp_path):
    def identity(*words: str, **callbacks: object):
        with search_path(configs(tmp_path, **callbacks)) as own:
            return Experiment(compose([*TINY, "callbacks=mine", *words], own)).identity

    plain = identity()
    assert identity(norms=NORMS) == plain
    assert identity(norms={**NORMS, "every": 5}) == plain
    heavy = {**NORMS, "_target_": f"{__name__}.Heavy"}
    assert identity(heavy=heavy)["callbacks"] == {**plain["callbacks"], "heavy": heavy}
    names = ("recorder", "statistics", "vectors")
    # What TINY says of the recorder cannot be said where there is none.
    words = [word for word in TINY if not word.startswith("callbacks.recorder.")]
    with search_path(configs(tmp_path)) as own:
        without, nothing = (
            Experiment(compose([*words, *said], own)).identity
            for said in ([f"~callbacks.{n}" for n in names], [f"callbacks.{n}=null" for n in names])
        )
    assert without == nothing == plain
    assert identity_hash(without) == identity_hash(nothing) == identity_hash(plain)
    assert plain["callbacks"].keys() == {"cadence", "early_stop"}


REFUSED_RECORDERS = {
    "same_table": {"norms": NORMS, "more": {**NORMS, "every": 2}},
    "table_of_attnlab": {"more": {"_target_": OF_VECTORS, "_partial_": True, "num_tokens": 4}},
    "not_partial": {"norms": {key: NORMS[key] for key in ("_target_", "every")}},
    "no_table": {"norms": {**NORMS, "_target_": f"{__name__}.Nameless"}},
    "table_of_training": {"norms": {**NORMS, "_target_": f"{__name__}.Trains"}},
    "table_of_no_name": {"norms": {**NORMS, "_target_": f"{__name__}.Nested"}},
    "recorder_knob": {"norms": {**NORMS, "evry": 2}},
    "recorder_value": {"norms": {**NORMS, "every": 101}},
}


@pytest.mark.parametrize("name", REFUSED_RECORDERS)
def test_a_recorder_that_cannot_be_is_refused(tmp_path, name):
    place = configs(tmp_path, **REFUSED_RECORDERS[name])
    with search_path(place) as own, pytest.raises(ConfigError) as raised:
        compose(["callbacks=mine"], own)
    says(f"config.callbacks.{name}", "\n".join(raised.value.faults), ROOT)


OF_LIGHTNING = "pytorch_lightning.callbacks"
REFUSED = {
    "no_callback": {"_target_": f"{__name__}.NoCallback"},
    "no_class": {"_target_": f"{__name__}.Count"},
    "no_signature": {"_target_": "collections.OrderedDict"},
    "no_knob": {"_target_": COUNTS, "name": "a", "evry": 2},
    "missing_knob": {"_target_": COUNTS},
    "saves": {"_target_": f"{OF_LIGHTNING}.ModelCheckpoint"},
    "stops": {"_target_": f"{OF_LIGHTNING}.EarlyStopping", "monitor": "loss"},
    "shows": {"_target_": f"{OF_LIGHTNING}.TQDMProgressBar"},
    "monitors": {"_target_": f"{OF_LIGHTNING}.LearningRateMonitor"},
    "directive": {"_target_": COUNTS, "name": "a", "_in_identity_": "no"},
    "no_target": {"name": "a"},
    "number_for_a_class": {"_target_": 5},
    "fails": {"_target_": f"{__name__}.Fails"},
    "exits": {"_target_": f"{__name__}.Exits"},
    "accumulates": {"_target_": f"{OF_LIGHTNING}.GradientAccumulationScheduler", "scheduling": {}},
    "key_of_no_text": {"_target_": COUNTS, "name": {0: 2}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_callback_or_does_what_attnlab_does_is_refused(tmp_path, name):
    place = configs(tmp_path, mine=REFUSED[name])
    with search_path(place) as own, pytest.raises(ConfigError) as raised:
        compose(["callbacks=mine"], own)
    says(f"config.callbacks.{name}", "\n".join(raised.value.faults), ROOT)


def test_a_callback_that_no_yaml_of_the_users_names_is_not_imported(composed):
    assert "turtle" not in sys.modules
    with pytest.raises(ConfigError) as raised:
        composed("+callbacks.mine._target_=turtle.Turtle")
    says("config.callbacks.foreign", "\n".join(raised.value.faults))
    assert "turtle" not in sys.modules


def test_the_directive_of_callbacks_is_for_callbacks_alone(composed):
    with pytest.raises(ConfigError) as raised:
        composed("+optimizer._in_identity_=false")
    says("config.callbacks.of_another_section", "\n".join(raised.value.faults))

"""attnlab in Python: what a notebook calls; the commands and pages ask the same functions.

import attnlab

run = attnlab.train("dataset=pronoun", "variant=multihead")
runs = attnlab.runs("runs", where="dataset=pronoun")
attnlab.compare(runs, by=["variant"]).panels[0].groups[0].over_seeds("test/accuracy")
model = attnlab.load(run)
model.attention("The animal didn't cross the street because it was too tired.").shown.title
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from attnlab.analysis.attention_report import AttentionReport, attention_report
from attnlab.analysis.compare import Comparison, comparison
from attnlab.analysis.embedding_report import EmbeddingReport, embedding_report
from attnlab.analysis.expert_report import ExpertReport, expert_report
from attnlab.analysis.head_report import HeadReport, head_report
from attnlab.analysis.run_list import ListedRun, RunList, list_runs
from attnlab.config import compose, search_path
from attnlab.console import Console
from attnlab.environment import default_runs_dir
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.launch.run import Outcome
from attnlab.launch.run import run as train_one
from attnlab.loaded_run import LoadedRun
from attnlab.loaded_run import load as load_run
from attnlab.places import require_writable
from attnlab.run_record.record import Record, find_runs, resolve

Named = str | Path | ListedRun
"""A run: its directory, a unique prefix of its name, or one of a list."""


class TrainingFailed(RuntimeError):
    """A run ended without a result; its record says where."""


class Run(LoadedRun):
    """A run that is loaded: its model, data and config, and the questions that commands ask."""

    def heads(self, measure: str | None = None) -> HeadReport:
        """Return what each head does (`attnlab heads`); with `measure`, its course."""
        return head_report([self.record], measure)

    def attention(
        self,
        text: str,
        query: int | str | None = None,
        layer: int | str | None = None,
        head: int | str | None = None,
        view: str = "weights",
    ) -> AttentionReport:
        """Return who looks at whom in a text, and the answer without it (`attnlab attend`)."""
        return attention_report(self, text, query, layer, head, view)

    def experts(self, split: str = "validation", layer: int | None = None) -> ExpertReport:
        """Return which experts work on which tokens (`attnlab experts`)."""
        return expert_report(self, split, layer)

    def neighbours(self, word: str | None = None, count: int | None = None) -> EmbeddingReport:
        """Return the tokens whose vectors are alike (`attnlab embed`)."""
        return embedding_report(self, word, count)


def runs(
    place: Named | Sequence[Named] | None = None,
    where: str | None = None,
    *,
    runs_dir: str | Path | None = None,
) -> RunList:
    """Return the runs of a directory of runs, or the runs that are named.

    Without `place`, those of `runs_dir`, which is $ATTNLAB_RUNS or "runs" unless given. `where` has
    conditions on config and results, as in "variant=moe num_layers>=2"
    (`attnlab.analysis.where`). Raises RequestError where nothing is there.
    """
    directory = Path(runs_dir or default_runs_dir())
    words = [] if place is None else [place] if isinstance(place, Named) else list(place)
    records: list[Record] = [] if words else find_runs(directory)
    for word in words:
        if isinstance(word, ListedRun):
            records.append(word.record)
        elif Path(word).is_dir() and not Path(word, "config.yaml").exists():
            records += find_runs(Path(word))
        else:
            records.append(resolve(str(word), directory))
    listed = list_runs({record.path.resolve(): record for record in records}.values())
    return listed if where is None else listed.where(where)


def compare(
    runs: RunList,
    *,
    by: Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: Collection[str] = (),
) -> Comparison:
    """Return groups of runs over their seeds, with intervals and paired differences.

    The parameters are those of `attnlab compare`. Raises RequestError for an unfair comparison.
    """
    return comparison(runs.selection, by=by, metric=metric, baseline=baseline, allow=allow)


def train(*overrides: str, config_dir: str | Path | None = None) -> ListedRun:
    """Train a run, or find it where it is finished, and return it.

    The overrides are those of `attnlab train`. Raises RequestError for a wrong request, before
    anything is written; TrainingFailed for a run without a result; KeyboardInterrupt on Ctrl-C,
    once the run is saved: the same call goes on from there.
    """
    with search_path(None if config_dir is None else Path(config_dir)) as own:
        config = compose(list(overrides), own)
    require_writable(Path(config.values["runs_dir"]), "runs_dir")
    try:
        outcome = train_one(config, Console(soft_wrap=True))
    except Interrupted as interrupted:
        raise KeyboardInterrupt(str(interrupted)) from interrupted
    _require_result(outcome)
    (listed,) = list_runs([Record(outcome.directory)])
    return listed


def load(
    run: Named,
    *,
    runs_dir: str | Path | None = None,
    config_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Load a run with its model onto the CPU (`attnlab.loaded_run.load`)."""
    named: Any = run.path if isinstance(run, ListedRun) else run
    loaded = load_run(named, runs_dir=runs_dir, config_dir=config_dir, overrides=overrides)
    return Run(loaded.record, loaded.step, loaded.experiment, loaded.model)


def _require_result(outcome: Outcome) -> None:
    if outcome.ok:
        return
    sentence = f"{outcome.directory.name}: {outcome.status}: {outcome.note}"
    if outcome.status == "failed":
        raise TrainingFailed(sentence)
    raise RequestError(sentence)

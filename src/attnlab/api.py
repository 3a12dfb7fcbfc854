"""The Python interface for notebooks; commands and pages call the same functions.

import attnlab

run = attnlab.train("dataset=pronoun", "variant=multihead")
runs = attnlab.runs("runs", where="dataset=pronoun")
attnlab.compare(runs, by=["variant"]).panels[0].groups[0].over_seeds("test/accuracy")
model = attnlab.load(run)
model.attention("The animal didn't cross the street because it was too tired.").shown.title
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from reprlib import repr as short_repr
from typing import SupportsIndex

from attnlab.analysis.attention_report import AttentionReport, attention_report
from attnlab.analysis.compare import Comparison, comparison
from attnlab.analysis.embedding_report import EmbeddingReport, embedding_report
from attnlab.analysis.expert_report import ExpertReport, expert_report
from attnlab.analysis.find import find_records
from attnlab.analysis.head_choice import Choice
from attnlab.analysis.head_report import HeadReport, head_report
from attnlab.analysis.run_list import ListedRun, RunList, list_runs
from attnlab.analysis.select import select_undamaged
from attnlab.config import compose, search_path
from attnlab.console import Console
from attnlab.errors import RequestError
from attnlab.interruption import Interrupted
from attnlab.launch.outcome import Outcome
from attnlab.launch.run import run as train_one
from attnlab.layers import HeadRef
from attnlab.loaded_run import LoadedRun
from attnlab.loaded_run import load as load_run
from attnlab.places import require_writable
from attnlab.printable import say_message
from attnlab.run_record.record import Record
from attnlab.run_record.run_ref import RunRef


class TrainingFailed(RuntimeError):
    """A run ended without a result; its record has the details."""


class Run(LoadedRun):
    """A loaded run: its model, data and config, with the analyses of the commands as methods."""

    def heads(self, measure: str | None = None) -> HeadReport:
        """Return the measures of each head (`attnlab heads`); with `measure`, its history."""
        return head_report([self.record], measure)

    def attention(
        self,
        text: str,
        query: Choice = None,
        layer: Choice = None,
        head: Choice | HeadRef = None,
        view: str = "weights",
        *,
        maps: bool = True,
    ) -> AttentionReport:
        """Return which tokens attend to which, and answers with edges cut (`attnlab attend`).

        `query` is a token (its last occurrence) or a position; None is where the model answers.
        `view` is one of weights, norms, rollout and flow. Without `layer` and `head`, the sharpest
        map at the query is shown.
        `head` may be a `HeadRef`, which chooses the layer too. `maps=False` saves the forward pass
        for each position of the text that maps of influence cost.
        """
        return attention_report(self, text, query, layer, head, view, maps=maps)

    def experts(
        self, split: str = "validation", layer: SupportsIndex | None = None
    ) -> ExpertReport:
        """Return which experts process which tokens (`attnlab experts`)."""
        return expert_report(self, split, layer)

    def neighbours(self, word: str | None = None, count: int | None = None) -> EmbeddingReport:
        """Return the tokens with the most similar embeddings (`attnlab embed`)."""
        return embedding_report(self, word, count)


def runs(
    place: RunRef | Iterable[RunRef] | None = None,
    where: str | None = None,
    *,
    runs_dir: str | Path | None = None,
) -> RunList:
    """Return the runs of a directory of runs, or the named runs.

    `place` names runs as commands do: by directories of runs, directories, prefixes or patterns of
    names ("pronoun-*"), or entries of another list; without it, all runs of `runs_dir` (default:
    $ATTNLAB_RUNS or "runs") are returned. `where` has conditions on config and results, as in
    "variant=moe num_layers>=2" (`attnlab.analysis.where`). Raises RequestError for a missing
    directory or an unknown name.
    """
    run_list = list_runs(find_records(place, runs_dir))
    return run_list if where is None else run_list.where(where)


def compare(
    runs: RunRef | Iterable[RunRef],
    *,
    by: str | Sequence[str] | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    allow: str | Collection[str] = (),
) -> Comparison:
    """Compare groups of runs over their seeds, with intervals and paired differences.

    `runs` are entries of `runs()`, in a list of any kind, or names of runs. The parameters are
    those of `attnlab compare`. Raises RequestError for an unfair comparison.
    """
    selection = _to_run_list(runs).selection
    return comparison(selection, by=by, metric=metric, baseline=baseline, allow=allow)


def heads(
    runs: RunRef | Iterable[RunRef],
    measure: str | None = None,
    *,
    runs_dir: str | Path | None = None,
) -> HeadReport:
    """Return the measures of the heads of each run; heads of several seeds are matched first.

    `runs` are entries of `runs()`, or names of runs. The parameters are those of `attnlab heads`.
    Raises RequestError where no run has measures of its heads (`head_report`).
    """
    references = [runs] if isinstance(runs, RunRef) else list(runs)
    if not references:
        raise RequestError("heads: the list of runs is empty; attnlab.runs() lists all of them")
    return head_report(select_undamaged(references, runs_dir), measure)


def train(*overrides: str, config_dir: str | Path | None = None) -> ListedRun:
    """Train a run, or find it where it is already finished, and return it.

    The overrides are those of `attnlab train`. Raises RequestError for a wrong request, before
    anything is written; TrainingFailed for a run without a result; KeyboardInterrupt on Ctrl-C,
    after the run is saved: the same call continues it.
    """
    for override in overrides:
        if not isinstance(override, str):
            raise RequestError(
                f"train: {short_repr(override)} is no override: expected texts, as in "
                'train("variant=multihead", "seed=1"), got '
                f"{type(override).__name__}; a list of texts is passed as train(*overrides)"
            )
    with search_path(None if config_dir is None else Path(config_dir)) as user_targets:
        config = compose(list(overrides), user_targets)
    for note in config.notes:
        say_message(note)
    require_writable(Path(config.values["runs_dir"]), "runs_dir")
    try:
        outcome = train_one(config, Console(soft_wrap=True))
    except Interrupted as interrupted:
        raise KeyboardInterrupt(str(interrupted)) from interrupted
    _require_result(outcome)
    (finished_run,) = list_runs([Record(outcome.directory)])
    return finished_run


def load(
    run: RunRef,
    *,
    runs_dir: str | Path | None = None,
    config_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Load a run with its model onto the CPU (`attnlab.loaded_run.load`)."""
    loaded_run = load_run(run, runs_dir=runs_dir, config_dir=config_dir, overrides=overrides)
    return Run(loaded_run.record, loaded_run.step, loaded_run.experiment, loaded_run.model)


def _to_run_list(runs: RunRef | Iterable[RunRef]) -> RunList:
    """Return runs as a list; where all are listed already, none is read again."""
    if isinstance(runs, RunList):
        return runs
    references = [runs] if isinstance(runs, RunRef) else list(runs)
    listed_runs = [run for run in references if isinstance(run, ListedRun)]
    if len(listed_runs) == len(references):
        return RunList(listed_runs)
    return list_runs(find_records(references))


def _require_result(outcome: Outcome) -> None:
    if outcome.ok:
        return
    message = f"{outcome.directory.name}: {outcome.status}: {outcome.note}"
    if outcome.status == "failed":
        raise TrainingFailed(message)
    raise RequestError(message)

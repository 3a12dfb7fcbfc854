"""The page of embeddings."""

from typing import TYPE_CHECKING

from attnlab.analysis.left_out import LeftOut
from attnlab.dashboard.record_answers import RecordAnswers
from attnlab.errors import RecordError, RequestError
from attnlab.report.record_page import RecordPage
from attnlab.run_record.vectors import TABLE

if TYPE_CHECKING:
    from attnlab.report.embeddings_page import EmbeddingsView


class EmbeddingsAnswers(RecordAnswers["EmbeddingsView"]):
    """Answers what is asked about the embeddings of a run."""

    title, path = "Embeddings", "/embeddings"

    def view_type(self) -> "type[EmbeddingsView]":
        # The plane is computed with torch, which takes seconds to import.
        from attnlab.report.embeddings_page import EmbeddingsView

        return EmbeddingsView

    def content(self, view: "EmbeddingsView") -> RecordPage:
        from attnlab.analysis.recorded_embeddings import recorded_embeddings
        from attnlab.report.embeddings_page import COLOURS, embeddings_page

        record_by_name, left_out = {}, []
        for run in self.runs(view.where, view.run):
            try:
                num_rows = run.record.rows(TABLE).num_rows
            except RecordError as error:
                left_out.append(LeftOut(run.name, "damaged", str(error)))
                continue
            if num_rows > 1:
                record_by_name[run.name] = run.record
            else:
                reason = "recorded vectors of no two steps"
                left_out.append(LeftOut(run.name, run.state, reason))
        if not record_by_name:
            raise RequestError(
                "none of these runs recorded its vectors at two steps; `attnlab train` with its "
                "default callbacks does, as callbacks.vectors keeps them"
            )
        name = view.shown or next(iter(record_by_name))
        if name not in record_by_name:
            raise RequestError(f"no run with vectors here is {name!r}")
        if view.colour not in COLOURS:
            raise RequestError(f"colour={view.colour[:20]!r}: expected {' or '.join(COLOURS)}")
        embeddings = recorded_embeddings(record_by_name[name], view.token)
        num_steps = len(embeddings.history.steps)
        if view.at and not (view.at.isdecimal() and int(view.at) < num_steps):
            raise RequestError(f"at={view.at[:20]!r}: expected a number from 0 to {num_steps - 1}")
        return embeddings_page(embeddings, list(record_by_name), view, left_out)

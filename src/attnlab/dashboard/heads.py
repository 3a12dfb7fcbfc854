"""The page of heads."""

from typing import TYPE_CHECKING

from attnlab.analysis.run_list import Selection
from attnlab.dashboard.context import Context
from attnlab.dashboard.record_answers import RecordAnswers, readable_selection
from attnlab.errors import RequestError
from attnlab.report.record_page import RecordPage

if TYPE_CHECKING:
    from attnlab.analysis.head_arm import ArmHeads
    from attnlab.report.heads_page import HeadsView

MOST_KEPT = 64
"""The number of arms and measures whose heads are kept, as matching heads takes seconds."""


class HeadsAnswers(RecordAnswers["HeadsView"]):
    """Answers what is asked about the heads of an arm."""

    title, path = "Heads", "/heads"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._kept: dict[tuple[object, ...], tuple[object, "ArmHeads"]] = {}

    def view_type(self) -> "type[HeadsView]":
        # Matching heads computes with torch, which takes seconds to import.
        from attnlab.report.heads_page import HeadsView

        return HeadsView

    def content(self, view: "HeadsView") -> RecordPage:
        from attnlab.analysis.head_arm import arms_with_heads
        from attnlab.report.heads_page import heads_page

        selection = readable_selection(self.runs(view.where, view.run))
        arms, left_out = arms_with_heads(selection)
        labels = [label for label, runs in arms.items() if view.arm in runs]
        if view.arm and not labels:
            return heads_page(
                None, arms, view, left_out, f"no arm with heads here has a run {view.arm!r}"
            )
        label = labels[0] if labels else next(iter(arms))
        try:
            heads = self._heads(label, arms[label], selection, view.measure)
        except RequestError as error:
            return heads_page(None, arms, view, left_out, str(error))
        return heads_page(heads, arms, view, left_out)

    def _heads(self, label: str, runs: list[str], selection: Selection, measure: str) -> "ArmHeads":
        """Return the heads of an arm, which are kept where all of its runs are finished."""
        from attnlab.analysis.head_arm import arm_heads

        results = [selection.results.get(run) for run in runs]
        key = (label, measure, *runs, *(id(result) for result in results))
        if key in self._kept:
            return self._kept[key][1]
        heads = arm_heads(label, runs, selection, measure)
        if all(result is not None for result in results):
            if len(self._kept) >= MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            # The results are kept too, so that no other one can have the identity of one of them.
            self._kept[key] = results, heads
        return heads

"""The page of influence."""

from attnlab.analysis.influence_report import influence_report
from attnlab.dashboard.record_answers import RecordAnswers, readable_selection
from attnlab.errors import RequestError
from attnlab.report.influence_page import InfluenceView, influence_page
from attnlab.report.record_page import RecordPage


class InfluenceAnswers(RecordAnswers[InfluenceView]):
    """Answers what is asked about what models read."""

    title, path = "Influence", "/influence"

    def view_type(self) -> type[InfluenceView]:
        return InfluenceView

    def content(self, view: InfluenceView) -> RecordPage:
        selection = readable_selection(self.runs(view.where, view.run))
        if view.step and not view.step.isdecimal():
            raise RequestError(f"step={view.step[:20]!r}: expected a number")
        step = int(view.step) if view.step else None
        return influence_page(*influence_report(selection, view.dataset, step), view)

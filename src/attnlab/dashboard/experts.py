"""The page of experts."""

from attnlab.analysis.expert_loads import expert_loads
from attnlab.analysis.left_out import LeftOut
from attnlab.dashboard.record_answers import RecordAnswers
from attnlab.errors import RecordError, RequestError
from attnlab.report.experts_page import ExpertsView, experts_page
from attnlab.report.record_page import RecordPage


class ExpertsAnswers(RecordAnswers[ExpertsView]):
    """Answers what is asked about the experts of runs."""

    title, path = "Experts", "/experts"

    def view_type(self) -> type[ExpertsView]:
        return ExpertsView

    def content(self, view: ExpertsView) -> RecordPage:
        all_loads, left_out = [], []
        for run in self.runs(view.where, view.run):
            try:
                if run.state == "damaged":
                    raise RecordError(run.fault)
                loads = expert_loads(run.record)
            except RecordError as error:
                left_out.append(LeftOut(run.name, "damaged", str(error)))
                continue
            if loads.layers:
                all_loads.append(loads)
            elif not run.record.layers.experts:
                left_out.append(LeftOut(run.name, run.state, "has no experts"))
            else:
                reason = "recorded no load of its experts yet"
                left_out.append(LeftOut(run.name, run.state, reason))
        if not all_loads:
            raise RequestError(
                "none of these runs recorded the load of experts; `attnlab train variant=moe` does"
            )
        return experts_page(all_loads, view, left_out)

"""The effect of ablations on a run: without heads, without an edge, or with a twin's patterns.

import attnlab
from attnlab.analysis.ablations import edge_cut_report, heads_without_report, pruning_report
from attnlab.layers import HeadRef

run = attnlab.load("pronoun-multihead")
heads_without_report(run, heads=[HeadRef(0, 1), HeadRef(1, 3)]).all_ablated  # accuracy without both
text = "The animal didn't cross the street because it was too tired."
edge_cut_report(run, text, "it:animal").answers
pruning_report(run, metric="loss", order="greedy").curve

docs/json.md lists the fields of each report.
"""

from attnlab.analysis.ablations.edge_cut import EdgeCutReport, edge_cut_report
from attnlab.analysis.ablations.head_importance import ImportanceReport, importance_report
from attnlab.analysis.ablations.head_pruning import ORDERS, PruningReport, pruning_report
from attnlab.analysis.ablations.heads_without import HeadsWithoutReport, heads_without_report
from attnlab.analysis.ablations.patching_report import ASKED, PatchingReport, patching_report
from attnlab.analysis.ablations.request import METHODS

AblationReport = (
    HeadsWithoutReport | EdgeCutReport | ImportanceReport | PruningReport | PatchingReport
)

__all__ = [
    "ASKED",
    "METHODS",
    "ORDERS",
    "AblationReport",
    "EdgeCutReport",
    "HeadsWithoutReport",
    "ImportanceReport",
    "PatchingReport",
    "PruningReport",
    "edge_cut_report",
    "heads_without_report",
    "importance_report",
    "patching_report",
    "pruning_report",
]

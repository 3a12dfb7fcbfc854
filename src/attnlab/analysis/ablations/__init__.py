"""The effect of ablations on a run: without heads, without an edge, or with a twin's patterns.

import attnlab
from attnlab.analysis.ablations import edge_cut, heads_without, pruning_report
from attnlab.layers import HeadRef

run = attnlab.load("pronoun-multihead")
heads_without(run, heads=[HeadRef(0, 1), HeadRef(1, 3)]).all_ablated  # accuracy without both
edge_cut(run, "The animal didn't cross the street because it was too tired.", "it:animal").answers
pruning_report(run, metric="loss", order="greedy").curve

docs/json.md lists the fields of each report.
"""

from attnlab.analysis.ablations.edge_cut import EdgeCutReport, edge_cut
from attnlab.analysis.ablations.head_importance import ImportanceReport, importance_report
from attnlab.analysis.ablations.head_pruning import ORDERS, PruningReport, pruning_report
from attnlab.analysis.ablations.heads_without import HeadsWithoutReport, heads_without
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
    "edge_cut",
    "heads_without",
    "importance_report",
    "patching_report",
    "pruning_report",
]

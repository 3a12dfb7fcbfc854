"""The effect of ablations on a run: without heads, without an edge, or with a twin's patterns.

import attnlab
from attnlab.analysis.ablations import edge_cut, heads_without, pruning_report
from attnlab.layers import HeadRef

run = attnlab.load("pronoun-multihead")
heads_without(run, heads=[HeadRef(0, 1), HeadRef(1, 3)]).together  # accuracy without both
edge_cut(run, "The animal didn't cross the street because it was too tired.", "it:animal").answers
pruning_report(run, metric="loss", order="greedy").curve

JSON of each has schema, run, step, and
- heads_without: split, metric, method ("zero", or "mean": the head has its mean pattern over the
  split, at each position), whole (the metric of the whole model), without [{"layer", "name", "head"
  (null: all heads of the layer), "value"}] and together (the metric without all selected heads;
  null where none were selected);
- importance_report: split, loss (of the whole model, nats), heads [{"layer", "name", "head",
  "gradient" (the mean of |d loss / d gate| for a gate at 1), "normalised" (by its layer's l2 norm),
  "expected" (the change of the loss if it were linear), "value" (the loss without the head),
  "change"}] and rank_correlation (Spearman's of gradient and change; null where one is constant);
- pruning_report: split, metric, method, order, curve [{"removed", "layer", "name", "head",
  "value"}], first of the whole model (layer, name and head null), then after each removed head;
  where random orders were requested also random, the values of their curves;
- edge_cut: begins (whether the answer is the first token of a sequence), tokens, query, key
  (positions), layers, heads [{"layer", "head", "weight"}] in which the edge is cut, with its
  attention weight before, and answers [{"output", "before", "after"}];
- twin_report: pairs (of an input A and its twin B; all of the test split), query (a token, "asked",
  or null: all queries), one and other (the logit of A's answer minus that of B's, mean over pairs,
  on the inputs A and B), heads [{"layer", "name", "head", "patched" (the same on A with this head's
  pattern on B), "effect" (0 where patched equals one, 1 where it equals other)}] and together
  {"patched", "effect"} with all of these heads patched at once.
"""

from attnlab.analysis.ablations.edge_cut import EdgeCutReport, edge_cut
from attnlab.analysis.ablations.head_importance import ImportanceReport, importance_report
from attnlab.analysis.ablations.head_pruning import ORDERS, PruningReport, pruning_report
from attnlab.analysis.ablations.heads_without import HeadsWithoutReport, heads_without
from attnlab.analysis.ablations.request import METHODS
from attnlab.analysis.ablations.twin_patching import ASKED, TwinReport, twin_report

AblationReport = HeadsWithoutReport | EdgeCutReport | ImportanceReport | PruningReport | TwinReport

__all__ = [
    "ASKED",
    "METHODS",
    "ORDERS",
    "AblationReport",
    "EdgeCutReport",
    "HeadsWithoutReport",
    "ImportanceReport",
    "PruningReport",
    "TwinReport",
    "edge_cut",
    "heads_without",
    "importance_report",
    "pruning_report",
    "twin_report",
]

"""What a table of heads shows, in the terminal and on a page: its columns and what they mean."""

from attnlab.analysis.head_roles import EVEN
from attnlab.analysis.table import format_number
from attnlab.evidence.base import MOST_WEIGHT

COLUMNS = {
    "prev.": "previous",
    "curr.": "current",
    "dupl.": "duplicate_token",
    "prefix": "prefix_matching",
    "sink": "sink",
    "entropy": "normalised_entropy",
    "keys": "effective_keys",
    "dist.": "distance",
}
"""The measures in a run's table, by their column headers."""
GROUP_HEADERS = ("prev.", "dupl.", "prefix", "sink", "entropy")
LEGEND = (
    "prev., curr., dupl.: weight of the previous, the current, earlier same tokens",
    "prefix: of what followed those, where there are any; sink: of the first four",
    "entropy: 0 to 1; keys: as many with equal weight; dist.: in tokens",
    "since: the measured step from which on the score of the role stays high",
)
FINDINGS_LEGEND = (
    "weight: attention that the head pays where its role says, 0 to 1",
    "left without: the share of right answers where that is taken away",
)
SINCE_LEGEND = (
    "since: the measured step from which on it names this head, with more than half",
    "of its last weight",
)
GROUP_LEGEND = (
    "mean ± half of the 95 % t-interval over seeds, columns as of one run; apart:",
    "distance of matched patterns (Jensen-Shannon, 0 to 1).",
)
SEVERAL_HEADS_LEGEND = (
    "A match is the best of all, so it is below chance even where heads have nothing",
    "in common.",
)
DRIFT_LEGEND = (
    "drift: the Jensen-Shannon distance of each row to that of the recorded step",
    "before, 0 to 1, mean over the queries of all probes",
)
ROLES_LEGEND = (
    f"roles: most of the weight (> {format_number(MOST_WEIGHT, 1)}); "
    f"broad: entropy > {format_number(EVEN, 1)}"
)
CAVEAT = "Roles are names for scores, not proof: ablate."


def measure_of_header(name: str | None) -> str | None:
    """Return the measure that a column of the table shows, such as `prefix`; else the name."""
    for header, measure in COLUMNS.items():
        if name is not None and name in (header, header.rstrip(".")):
            return measure
    return name

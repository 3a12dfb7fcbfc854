"""A comparison for a paper, a web page or a spreadsheet: LaTeX, Markdown and CSV."""

import csv
import io
import re
from collections.abc import Callable, Sequence

from attnlab.analysis.arms import format_value
from attnlab.analysis.compare import Comparison, Panel
from attnlab.analysis.statistics import Difference
from attnlab.analysis.table import Column, comparison_columns, panel_legend, panel_title

LATEX_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def to_latex(report: Comparison) -> str:
    r"""Return a table for each panel; it needs \usepackage{booktabs}."""
    comments = ["% needs \\usepackage{booktabs}", *(f"% {note}" for note in report.footnotes)]
    return "\n\n".join(["\n".join(comments), *map(_latex_table, report.panels)])


def to_markdown(report: Comparison) -> str:
    """Return a title, a table and a caption for each panel, and what is not in them."""
    notes = [f"*{_markdown_text(note)}*" for note in report.footnotes]
    return "\n\n".join([*map(_markdown_table, report.panels), *notes])


def to_csv(report: Comparison) -> str:
    """Return a row for each group with raw numbers, empty where there is none.

    The columns are dataset, the keys of all panels, metric, n, mean, low, high; the difference to
    the baseline with the number of pairs, its interval and p; and costs, as means over the runs.
    """
    rows = [_csv_row(panel, i) for panel in report.panels for i in range(len(panel.groups))]
    keys = dict.fromkeys(
        key for panel in report.panels for key in (*panel.panel_keys, *panel.groups[0].keys)
    )
    value_columns = [key for key in rows[0] if key not in (*keys, "dataset")]
    csv_text = io.StringIO()
    writer = csv.DictWriter(
        csv_text, ["dataset", *keys, *value_columns], restval="", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return csv_text.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "latex": to_latex,
    "markdown": to_markdown,
    "csv": to_csv,
}


def _latex_table(panel: Panel) -> str:
    """Return a floating table of a panel, with its title and notes as the caption."""
    table_columns = comparison_columns(panel)
    alignment = "".join("r" if column.is_count else "l" for column in table_columns)
    sentences = [panel_title(panel), *map(_sentence, _notes(panel)), *_seeds_sentence(panel)]
    caption = ". ".join(sentences)
    rows = [
        " & ".join(map(_latex_text, cells)) + r" \\"
        for cells in (_headers(table_columns), *_cell_texts(table_columns))
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(caption)}.}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', f'{panel.dataset}-{panel.metric}')}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _seeds_sentence(panel: Panel) -> list[str]:
    """Return which seeds the groups have, if all have the same."""
    seeds_of_groups = {tuple(group.seeds) for group in panel.groups}
    if len(seeds_of_groups) > 1:
        return []
    return [f"Seeds {', '.join(map(str, seeds_of_groups.pop()))}"]


def _markdown_table(panel: Panel) -> str:
    """Return a panel's title, its table and its notes."""
    table_columns = comparison_columns(panel)
    alignments = ["---:" if column.is_count else "---" for column in table_columns]
    rows = [
        f"| {' | '.join(cells)} |"
        for cells in (
            map(_markdown_text, _headers(table_columns)),
            alignments,
            *(map(_markdown_text, cells) for cells in _cell_texts(table_columns)),
        )
    ]
    notes = [f"*{_markdown_text(note)}*" for note in _notes(panel)]
    return "\n".join(
        [f"**{_markdown_text(panel_title(panel))}**", "", *rows, "", "\n\n".join(notes)]
    )


def _csv_row(panel: Panel, group_index: int) -> dict[str, object]:
    """Return the raw numbers of a group, by column."""
    group = panel.groups[group_index]
    interval = group.over_seeds(panel.metric)
    difference_by_group_id = {id(g): difference for g, difference in panel.differences}
    difference = difference_by_group_id.get(id(group), Difference(0, None, None, None, None))
    has_difference = id(group) in difference_by_group_id
    return {
        "dataset": panel.dataset,
        **{key: format_value(value) for key, value in {**panel.panel_keys, **group.keys}.items()},
        "metric": panel.metric,
        **interval._asdict(),
        "pairs": difference.n if has_difference else None,
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "p_holm": difference.p,
        **{
            field: group.mean(field)
            for field in ("parameters", "active_parameters", "flops_per_token", "seconds")
        },
    }


def _headers(table_columns: Sequence[Column]) -> list[str]:
    return [column.header for column in table_columns]


def _cell_texts(table_columns: Sequence[Column]) -> list[list[str]]:
    rows = zip(*(column.cells for column in table_columns), strict=True)
    return [[cell.to_text() for cell in row] for row in rows]


def _notes(panel: Panel) -> list[str]:
    return [panel_legend(panel), *panel.notes]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _latex_text(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)


def _markdown_text(text: str) -> str:
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)
    return escaped.replace("\n", " ")

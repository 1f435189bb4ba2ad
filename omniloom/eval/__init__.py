"""Room 7: measure a run and show it.

run_task       samples and an answer function -> a score with its interval, chance band and probes
Results        eval/results.json, written and read strictly; `table` prints it, `compare` tests two of them
write_report   one HTML file that opens offline;  model_card: the Markdown beside the weights
"""

from __future__ import annotations

from omniloom.eval.card import model_card
from omniloom.eval.compare import Comparison, compare
from omniloom.eval.intervals import Interval, McNemar, chance_band, cluster_bootstrap, holm, mcnemar, wilson
from omniloom.eval.media_html import RENDERERS, render_payload, shows
from omniloom.eval.metrics import SCORERS, Expected, Score, choice, exact, normalize, scorer, yes_no
from omniloom.eval.probes import PROBES
from omniloom.eval.report import render_report, summarise, write_report
from omniloom.eval.report_data import DataRow, Example, GraphEdge, GraphNode, Licence, ReportData, pick_examples
from omniloom.eval.results import Chance, ItemRecord, Probe, Results, TaskResult, read_results, write_results
from omniloom.eval.tables import comparison_table, table
from omniloom.eval.tasks import AnswerFn, FailedSample, run_task

__all__ = [
    "PROBES",
    "RENDERERS",
    "SCORERS",
    "AnswerFn",
    "Chance",
    "Comparison",
    "DataRow",
    "Example",
    "Expected",
    "FailedSample",
    "GraphEdge",
    "GraphNode",
    "Interval",
    "ItemRecord",
    "Licence",
    "McNemar",
    "Probe",
    "ReportData",
    "Results",
    "Score",
    "TaskResult",
    "chance_band",
    "choice",
    "cluster_bootstrap",
    "compare",
    "comparison_table",
    "exact",
    "holm",
    "mcnemar",
    "model_card",
    "normalize",
    "pick_examples",
    "read_results",
    "render_payload",
    "render_report",
    "run_task",
    "scorer",
    "shows",
    "summarise",
    "table",
    "wilson",
    "write_report",
    "write_results",
    "yes_no",
]

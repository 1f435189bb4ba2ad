from dataclasses import replace

from omniloom.eval import Licence, ReportData, model_card

from .report_example import report_data


def test_the_card_has_scores_parts_data_limits_and_licences() -> None:
    data = report_data(n=24, shown=0)
    card = model_card(data)
    assert card == model_card(data)
    for heading in ("# quickstart", "## Scores", "## Parts", "## Data", "## Use", "## Limits", "## Licences"):
        assert f"\n{heading}\n" in f"\n{card}"
    assert data.results is not None
    for task in data.results.tasks.values():
        low, high = task.interval95
        assert f"| {task.task} |" in card and f"{100 * low:.1f}-{100 * high:.1f}" in card


def test_the_card_says_what_the_numbers_say_against_the_model() -> None:
    data = report_data(n=24, shown=0)
    assert data.results is not None
    task = replace(data.results.tasks["clips"], above_chance=False, failed=2)
    card = model_card(replace(data, results=replace(data.results, tasks={"clips": task})))
    assert "clips: the accuracy is not above what guessing gives" in card
    assert "clips: 2 of 24 items failed and count as wrong" in card


def test_names_cannot_leave_their_cell() -> None:
    card = model_card(ReportData("r", licences=[Licence("a|b\n# c", "<img>", "MIT")]))
    row = next(line for line in card.splitlines() if "MIT" in line)
    assert row == "| a\\|b # c | &lt;img> | MIT |  |"


def test_sections_without_content_are_left_out() -> None:
    assert "##" not in model_card(ReportData("bare"))

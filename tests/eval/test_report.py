import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from omniloom.eval import Example, ReportData, Results, render_report, run_task, summarise, write_report
from omniloom.eval.report import _confusion, duration
from omniloom.sequence import Sample, Text, Turn

from .report_example import report_data

VOID = {"meta", "input", "img", "br", "hr", "link", "source"}


@cache
def small() -> ReportData:
    return report_data(n=24, shown=4)


@cache
def page() -> str:
    return render_report(small())


class Page(HTMLParser):
    """Checks that tags balance, and collects what the page refers to and says."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.references.append(value or "")
            if key == "id":
                self.ids.append(value or "")
            assert not key.startswith("on")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> Page:
    reader = Page()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_tags_balance_and_ids_are_unique() -> None:
    reader = parsed(page())
    assert len(set(reader.ids)) == len(reader.ids)
    assert {reference[1:] for reference in reader.references if reference.startswith("#")} <= set(reader.ids)


def test_the_page_refers_to_nothing_outside_itself_and_runs_no_script() -> None:
    reader = parsed(page())
    assert all(reference.startswith(("data:", "#")) for reference in reader.references)
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    assert not re.search(r"https?://|@import|url\((?!#)", page())
    assert "default-src &#39;none&#39;" in page() or "default-src 'none'" in page()


def test_every_section_of_a_full_run_is_there() -> None:
    reader = parsed(page())
    wanted = "results learning examples generated model cost next limits data environment".split()
    assert [key for key in reader.ids if key in wanted] == wanted


def test_every_example_is_shown_with_its_verdict() -> None:
    data, html = small(), page()
    assert html.count('<article class="example') == len(data.examples) + len(data.generated)
    shown = [*data.examples, *data.generated]
    assert html.count('class="example right"') == sum(example.correct is True for example in shown)
    assert html.count('class="example wrong"') == sum(example.correct is False for example in shown)
    assert html.count("<audio") == sum(
        1 for example in data.examples for kind, _ in example.parts if kind in ("speech", "video")
    )


def test_scores_chance_and_probes_of_every_task_are_printed() -> None:
    said = " ".join(" ".join(parsed(page()).text).replace("\xa0", " ").split())
    assert small().results is not None
    for task in small().results.tasks.values():
        assert task.blind is not None and task.shuffled is not None
        for share in (task.score, task.chance.value, task.blind.score, task.shuffled.score):
            assert f"{100 * share:.1f} %" in said


def tiles(html: str) -> str:
    """The report's own tiles, which alone use <b> beside the confusion tables."""
    return html[html.index('<div class="tiles">') : html.index("<section")]


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</dd></style><b>"])
def test_what_a_model_or_data_set_wrote_is_never_markup(hostile: str) -> None:
    example = Example(hostile, [("text", hostile)], hostile, [("text", hostile)], False, hostile)
    failed = Example("t", [("text", "?")], "x", [], False, "i", hostile)
    data = replace(
        small(),
        results=None,
        name=hostile,
        summary=hostile,
        examples=[example, failed],
        generated=[example],
        notes=[hostile],
        run_yaml=hostile,
        mermaid=hostile,
        environment={hostile: hostile},
        stages=[hostile],
        chat=[hostile],
        phases_s={hostile: 1.0},
        metrics=[{"stage": hostile, "step": k, "loss": 1.0, f"loss/{hostile}": 2.0, "loss/b": 1.0} for k in (1, 2)],
    )
    html = render_report(data)
    reader = parsed(html)
    assert hostile not in html
    assert not {"script", "b"} & set(parsed(html.replace(tiles(html), "")).tags)
    assert hostile in "".join(reader.text)
    assert all(reference.startswith(("data:", "#")) for reference in reader.references)


def test_confusions_account_for_every_item_even_with_many_labels() -> None:
    turns = [(Turn("user", (Text("?"),)), Turn("assistant", (Text(f"word{k % 40}"),))) for k in range(200)]
    samples = [Sample(str(k), pair) for k, pair in enumerate(turns)]
    task = run_task("t", samples, lambda prompts: [f"word{int(p.id) % 37}" for p in prompts], probes=[])
    table = _confusion(task)
    assert sum(cell["n"] for row in table["rows"] for cell in row["cells"]) == 200
    assert len(table["rows"]) == 15 and len(table["columns"]) == 19


def test_a_failed_or_empty_answer_says_so() -> None:
    parts = [("text", "?")]
    failed = Example("t", parts, "x", [], False, "a", "no such file")
    examples = [failed, Example("t", parts, "x", [("text", " ")], False)]
    said = " ".join(parsed(render_report(ReportData("r", examples=examples))).text)
    assert "failed: no such file" in said and "(empty)" in said


def test_an_empty_run_has_no_empty_sections() -> None:
    reader = parsed(render_report(ReportData("bare", results=Results("bare", "", {}))))
    assert "section" not in reader.tags and "bare" in "".join(reader.text)


def test_losses_that_are_not_numbers_are_left_out_of_the_curves() -> None:
    records = [{"stage": "s", "step": k, "loss": float("nan") if k == 3 else 1.0 / k} for k in range(1, 9)]
    html = render_report(ReportData("r", metrics=records))
    assert "nan" not in html.lower().split("</style>")[1]
    assert "8 steps" in html


def test_a_stage_shows_its_own_time_and_not_that_since_the_run_began() -> None:
    text = " ".join(parsed(page()).text)
    assert "240 steps, 3 min 17 s" in text and "160 steps, 2 min 11 s" in text


def test_equal_data_give_equal_bytes_and_the_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, ReportData("old"))
    assert write_report(path, small()) == path
    assert path.read_text(encoding="utf-8") == page() == render_report(small())
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_the_report_of_a_whole_run_stays_below_two_megabytes() -> None:
    assert len(page()) < 2_000_000


def test_the_summary_says_how_many_tasks_lie_above_chance() -> None:
    summary = summarise(small())
    assert "image, digit, speech, imu, points and video" in summary
    assert re.search(r"\d of 7 held-out tasks lie above what guessing gives", summary)


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.42, 59.94, 75.2, 3725)] == ["0.4 s", "59.9 s", "1 min 15 s", "1 h 02 min"]

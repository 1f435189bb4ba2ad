from omniloom.eval import FailedSample, Results, run_task, table

from .test_tasks import guesser, oracle, samples_of


def test_the_table_has_a_line_per_task_in_aligned_columns() -> None:
    tasks = {name: run_task(name, samples_of(40), oracle) for name in ("animals", "b")}
    header, rule, *rows = table(Results("run", "", tasks)).splitlines()
    assert len({header.index("score") + len("score"), rows[0].index("100.0 %") + len("100.0 %")}) == 1
    assert set(rule) == {"-", " "} and [row.split()[0] for row in rows] == ["animals", "b"]
    assert rows[0].split()[:3] == ["animals", "image", "40"]


def test_a_score_within_chance_is_marked_and_explained() -> None:
    text = table(Results("run", "", {"t": run_task("t", samples_of(40), guesser(0))}))
    assert " *" in text.splitlines()[2] and "not above the 99 % chance band" in text


def test_further_probes_and_notes_are_printed() -> None:
    lost = FailedSample("x", "ape", "gone")
    samples = [*samples_of(40, "image", "audio"), lost]
    text = table(Results("run", "", {"t": run_task("t", samples, oracle, probes=["permuted", "alone"])}))
    assert "t: image alone 100.0 % (n 40)" in text and "t: permuted" in text
    assert text.splitlines()[2].split()[-1] == "1"

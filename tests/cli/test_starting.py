"""The quickstart's own command; what it runs is tested where it is made."""

import shutil

from omniloom.starter import quickstart


def test_quickstart_shows_what_happens_and_ends_with_results_and_what_to_do_next(call, run, monkeypatch):
    folder = run.parent / "quick"
    asked = {}

    def stand_in(out, *, recipe, minutes, threads, tell):
        """The tiny run in place of minutes of training."""
        asked.update(out=out, recipe=recipe, minutes=minutes, threads=threads)
        tell({"event": "fetch", "name": "things-image", "stage": "writing"})
        tell({"event": "note", "text": "music is left out: no package"})
        shutil.copytree(run, out)
        tell({"event": "phases", "fetch_s": 61.0, "total_s": 3700.0})
        return out

    monkeypatch.setattr(quickstart, "run", stand_in)
    done = call("quickstart", "--out", folder, "--minutes", "2", "--threads", "1")
    shutil.rmtree(folder)
    assert done.exit_code == 0, done.output
    assert asked == {"out": folder, "recipe": "quickstart", "minutes": 2.0, "threads": 1}
    for told in (
        "things-image: writing",
        "music is left out",
        "1:01:40 in all, 1:01 of it",
        "99 % band",
        f"report:  {folder / 'report.html'}",
        f"omniloom chat {folder}",
        f"omniloom train {folder}.yaml",
    ):
        assert told in done.stdout, told


def test_minutes_must_be_some(call):
    assert call("quickstart", "--minutes", "0").exit_code == 2

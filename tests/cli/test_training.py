"""Training from the command line: what is shown, and what lies in the folder afterwards."""

import json

import yaml


def test_training_ends_with_results_report_and_a_way_to_chat(training):
    folder, done = training
    for name in ("run.yaml", "manifest.json", "metrics.jsonl", "eval/results.json", "report.html", "README.md"):
        assert (folder / name).is_file(), name
    assert f"report:  {folder / 'report.html'}" in done.stdout
    assert f'omniloom chat {folder} --image FILE -p "What is this?" --json' in done.stdout


def test_every_stage_is_shown_with_loss_and_speed(training):
    lines = training[1].stdout.splitlines()
    for stage in ("codec", "align", "align/warm_start", "instruct"):
        last = next(line for line in lines if line.startswith(f"{stage}  2/2"))
        assert "loss" in last and "done in 0:0" in last
    assert "tokens/s" in next(line for line in lines if line.startswith("instruct  2/2"))


def test_the_models_own_answers_are_shown(training):
    said = [line for line in training[1].stdout.splitlines() if "expected" in line and "says" in line]
    assert said and said[0].startswith("  align 2, ")


def test_the_table_of_results_is_printed(training):
    assert any(line.startswith("things  ") and "%" in line for line in training[1].stdout.splitlines())


def test_a_finished_run_is_not_trained_or_evaluated_again(call, training):
    folder, _ = training
    before = (folder / "eval" / "results.json").stat().st_mtime_ns
    request = yaml.safe_load((folder / "request.yaml").read_text())
    sets = [f"stages.{index}.sample_every={stage['sample_every']}" for index, stage in enumerate(request["stages"])]
    done = call("train", folder.parent.parent / "run.yaml", "--out", folder, *(a for s in sets for a in ("--set", s)))
    assert done.exit_code == 0, done.output
    assert "is trained already" in done.stdout and "loss" not in done.stdout
    assert (folder / "eval" / "results.json").stat().st_mtime_ns == before


def test_another_run_is_kept_out_of_the_folder(call, tiny, run):
    done = call("train", tiny, "--out", run, "--set", "seed=8")
    assert done.exit_code == 2
    assert "--fresh" in done.stderr and done.stderr.count("\n") == 1


def test_overfitting_has_a_folder_of_its_own_and_repeats_one_batch(call, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("train", tiny, "--overfit", "--set", "stages.align.warm_start=null")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "tiny-overfit"
    assert all(stage["overfit"] for stage in yaml.safe_load((folder / "run.yaml").read_text())["stages"])
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    batches = {record["labels"] for record in records if record["stage"] == "align"}
    assert len(batches) == 1
    assert not (folder / "eval").exists() and "trained into" in done.stdout
    done = call("show", "tiny-overfit")
    assert done.exit_code == 0, done.output


def test_without_evaluation_nothing_is_evaluated(call, tiny, tmp_path):
    args = ["--set", "stages.align.warm_start=null", "--set", "name=plain", "--no-eval"]
    done = call("train", tiny, "--out", tmp_path / "run", *args)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "manifest.json").is_file() and not (tmp_path / "run" / "eval").exists()
    done = call("report", tmp_path / "run")
    assert done.exit_code == 2 and "omniloom eval" in done.stderr

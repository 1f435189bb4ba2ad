"""A run before it is trained: parts, shapes, stages, graph, plans."""

import json

import pytest

from omniloom.config import load_run
from omniloom.model import compose


def test_parts_are_shown_with_the_parameters_they_have(call, tiny):
    done = call("show", tiny)
    assert done.exit_code == 0, done.output
    loaded = load_run(tiny)
    model = compose(loaded.config, base=loaded.base_folder)
    for name, values in model.components().items():
        size = sum(value.numel() for value in values.values())
        assert any(line.split()[0] == name and f"{size:,}" in line for line in done.stdout.splitlines() if line.split())
    for stage in loaded.config.stages:
        count = sum(value.numel() for value in model.select(stage.train).values())
        assert f"stage {stage.name} (of {stage.of}): 2 steps of {stage.batch}, {count:,} parameters" in done.stdout


def test_shapes_are_composed_along_the_path(call, tiny):
    done = call("show", tiny)
    assert "ImageProcessor 256 -> PatchViT 4 x 32 -> Pool 2 x 32 -> MLP 2 x 32" in done.stdout
    assert "drawing (image) <- 4 slots of 16 codes" in done.stdout


def test_values_set_on_the_command_line_are_shown(call, tiny):
    done = call("show", tiny, "--set", "modalities.image.in.projector=linear")
    assert "PatchViT 4 x 32 -> Linear 4 x 32" in done.stdout


def test_mermaid_is_the_graph_and_nothing_else(call, tiny):
    done = call("show", tiny, "--mermaid")
    assert done.stdout.startswith("flowchart LR\n")
    for name in load_run(tiny).config.modalities:
        assert f'["{name}<br/>' in done.stdout


def test_a_stage_shows_every_parameter_it_trains(call, tiny):
    done = call("show", tiny, "--stage", "instruct")
    assert "vocab.head" in done.stdout and "image/encoder" not in done.stdout
    assert call("show", tiny, "--stage", "instrct").stderr.count("Did you mean 'instruct'?") == 1


def test_the_plan_of_a_sample_is_explained(call, tiny):
    done = call("show", tiny, "--plan", "things", "--index", "1")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("sample 'train-0-sound'")
    assert "'Which pitch?'" in done.stdout and "MEDIA  sound" in done.stdout and "4 labels, 1 items" in done.stdout


def test_the_plan_of_a_file_of_ones_own_is_explained(call, tiny, media, tmp_path):
    file = media / "own.jsonl"
    content = [{"type": "image", "path": "test-0.png"}, {"type": "image", "path": "test-1.png"}]
    file.write_text(json.dumps({"id": "two", "messages": [{"role": "user", "content": content}]}))
    done = call("show", tiny, "--plan", file)
    assert "sample 'two'" in done.stdout and "2 items" in done.stdout


@pytest.mark.parametrize(
    ("args", "told"), [(["thing"], "Did you mean 'things'?"), (["things", "--index", "999"], "999")]
)
def test_a_plan_of_nothing_is_refused(call, tiny, args, told):
    done = call("show", tiny, "--plan", *args)
    assert done.exit_code == 2 and told in done.stderr


def test_a_trained_run_is_shown_by_its_folder(call, run):
    done = call("show", run)
    assert done.exit_code == 0, done.output
    assert "stage instruct" in done.stdout


def test_a_name_of_nothing_is_told(call):
    done = call("show", "no-such-recipe")
    assert done.exit_code == 2 and "no run file, run folder or recipe" in done.stderr


def test_code_of_a_trained_run_is_not_imported_unasked(call, tmp_path):
    (tmp_path / "run" / "parts").mkdir(parents=True)
    (tmp_path / "run" / "parts" / "evil.py").write_text("raise SystemExit('imported')")
    (tmp_path / "run" / "run.yaml").write_text("name: evil\n")
    done = call("show", tmp_path / "run")
    assert done.exit_code == 2 and "--allow-code" in done.stderr

"""Every problem of a run file and its data, before training."""

import json
import re
import shutil

import PIL.Image
import pytest
import yaml


@pytest.fixture
def own(tiny, tmp_path):
    """A copy of the tiny run: (values, write)."""
    shutil.copytree(tiny.parent / "data", tmp_path / "data")
    values = yaml.safe_load(tiny.read_text())
    values["backbone"]["id"] = str(tiny.parent / "language-model")

    def write():
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return values, write


def line_of(path, text):
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_a_right_run_has_no_problems_and_a_summary_of_its_data(call, tiny):
    done = call("check", tiny)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("no problems found\n")
    row = next(line for line in done.stdout.splitlines() if line.startswith("things"))
    assert "24" in row and "image 6, sound 6" in row and "9 different" in row
    # Labels of 24 answers: "red" 3 and so on, byte by byte, with the token that ends the turn.
    assert "111" in row and "56 (" in row


def test_every_problem_is_told_with_its_line(call, own):
    values, write = own
    values["modalities"]["image"]["in"]["encoder"]["patch_size"] = 8
    values["modalities"]["sound"]["payload"] = "image"
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert f"{path}:{line_of(path, 'patch_size')}: encoder 'patch_vit' has no option 'patch_size'" in done.stdout
    assert "holds payloads of kind 'image'" in done.stdout
    assert " problems found" in done.stdout


def test_media_that_nothing_would_read_are_a_problem_and_are_not_trained(call, own, tmp_path):
    values, write = own
    values["modalities"]["image"]["in"]["insert"] = "inject"
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert f"{path}:{line_of(path, 'image:')}: 'image' has `insert: inject`" in done.stdout
    done = call("train", path, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "no adapter reads it" in done.output


def test_problems_of_the_file_itself_come_alone(call, own):
    values, write = own
    values["stages"][1]["data"] = {"thing": 1.0}
    values["stages"][2]["lr"] = -1
    done = call("check", write())
    assert done.exit_code == 1
    assert "Did you mean 'things'?" in done.stdout and "2 problems found" in done.stdout


def test_data_problems_are_told_with_file_and_line(call, own, tmp_path):
    _, write = own
    (tmp_path / "data" / "train-3.wav").write_bytes(b"no sound")
    (tmp_path / "data" / "train-4.png").unlink()
    train = tmp_path / "data" / "train.jsonl"
    train.write_text(train.read_text() + '{"id": "x"}\n')
    done = call("check", write())
    assert done.exit_code == 1
    assert f"{train}:{line_of(train, 'train-3.wav')}: item 'sound'" in done.stdout
    assert f"{train}:{line_of(train, 'train-4.png')}: item 'image'" in done.stdout
    assert f"{train}:25: the record needs the key 'messages'" in done.stdout


def test_only_a_deep_check_decodes_media(call, own, tmp_path):
    _, write = own
    path = write()
    picture = tmp_path / "data" / "train-3.png"
    picture.write_bytes(picture.read_bytes()[:60])
    assert call("check", path, "--deep").exit_code == 1


def test_counts_selectors_and_rates_are_held_to_the_model(call, own):
    values, write = own
    values["stages"][0]["parameters"] = 5
    values["stages"][2]["lr"] = {"vocab*": 0.1}
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert (
        f"{path}:{line_of(path, 'parameters: 5')}: stage 'codec' trains 31,267 parameters, 5 are recorded"
        in done.stdout
    )
    lr = next(line for line in done.stdout.splitlines() if "vocab" in line or "lr" in line)
    assert lr.startswith(f"{path}:")


def test_a_language_model_that_is_not_there_is_a_problem_at_its_line(call, own):
    values, write = own
    values["backbone"]["id"] = "./no-such-model"
    path = write()
    done = call("check", path)
    assert done.exit_code == 1
    assert f"{path}:{line_of(path, 'no-such-model')}: " in done.stdout


def test_a_sample_longer_than_the_context_is_told(call, own):
    values, write = own
    values["context"] = {"max": 40}
    done = call("check", write())
    assert done.exit_code == 1
    assert "the limit is 40" in done.stdout


def test_many_problems_of_one_source_are_counted(call, own, tmp_path):
    _, write = own
    lines = [json.dumps({"id": str(index), "messages": []}) for index in range(50)]
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(lines))
    done = call("check", write())
    assert "30 more problems" in done.stdout
    assert "more problems" not in call("check", write(), "--deep").stdout


def test_what_a_processor_refuses_is_told_with_its_line(call, own, tmp_path):
    values, write = own
    values["modalities"]["sound"]["in"]["processor"]["max_s"] = 0.01
    path = write()
    done = call("check", path)
    train = tmp_path / "data" / "train.jsonl"
    assert done.exit_code == 1
    assert f"{train}:{line_of(train, 'train-3.wav')}: [audio_too_long] sample " in done.stdout
    assert "windows: true" in done.stdout


def test_a_processor_whose_raw_tensors_the_encoder_does_not_take_is_told(call, own):
    values, write = own
    values["modalities"]["sound"]["in"]["processor"]["num_mels"] = 16
    values["modalities"]["image"]["in"]["processor"]["channels"] = 1
    done = call("check", write())
    assert done.exit_code == 1
    assert "the encoder of 'sound': LogMelConv: raw tensor 0 has shape" in done.stdout
    assert "the encoder of 'image': PatchViT: raw tensor 0 has shape" in done.stdout


def test_options_of_another_kind_are_told_with_their_lines(call, own):
    values, write = own
    values["modalities"]["motion"]["in"]["processor"]["normalize"] = "false"
    values["modalities"]["motion"]["in"]["encoder"]["stride"] = "4"
    path = write()
    done = call("check", path)
    assert f"{path}:{line_of(path, 'normalize')}: processor 'series': option 'normalize' is 'false'" in done.stdout
    assert f"{path}:{line_of(path, 'stride')}: encoder 'series_conv': option 'stride' is '4', a text" in done.stdout


def test_what_a_part_refuses_is_told_at_its_place(call, own):
    values, write = own
    values["modalities"]["sound"]["in"]["encoder"]["heads"] = 3
    values["adapters"]["lora"]["rank"] = -2
    path = write()

    def told(what):
        return int(re.search(rf"run.yaml:(\d+): {what}", call("check", path).stdout)[1])

    lines = path.read_text().splitlines()
    sound = lines.index("  sound:") + 1
    assert lines[told("sound/encoder: ") - 1] == "      encoder:" and told("sound/encoder: ") in range(
        sound, sound + 16
    )
    values["modalities"]["sound"]["in"]["encoder"]["heads"] = 2
    path = write()
    assert lines[told("lora: LoRA rank is -2") - 1] == "  lora:"


def test_a_start_that_is_not_there_is_told(call, own):
    values, write = own
    values["init"] = {"image/*": "./nowhere", "imagge/*": "org/model"}
    path = write()
    done = call("check", path)
    assert f"{path}:{line_of(path, 'nowhere')}: " in done.stdout and "is no run folder" in done.stdout
    assert f"{path}:{line_of(path, 'imagge')}: 'imagge/*' matches no component" in done.stdout


def test_an_unknown_metric_is_told_before_anything_is_trained(call, own, tmp_path):
    values, write = own
    task = next(iter(values["evaluation"].values()))
    task["metric"] = "exakt"
    path = write()
    for command in (("check", path), ("train", path, "--out", tmp_path / "out")):
        done = call(*command)
        assert done.exit_code != 0 and f"{path}:{line_of(path, 'exakt')}: " in done.output
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_records_of_a_modality_that_is_split_are_no_problem(call, own, tmp_path):
    values, write = own
    values["modalities"]["frames"] = {
        "payload": "video",
        "in": {
            "processor": {"type": "video", "frames": 4, "size_px": 16},
            "encoder": {"type": "patch_vit", "patch_px": 8, "width": 32, "depth": 1, "heads": 2},
            "projector": "mlp",
        },
    }
    values["modalities"]["clip"] = {"payload": "video", "split": ["frames", "sound"]}
    frames = [PIL.Image.new("RGB", (16, 16), (40 * index,) * 3) for index in range(3)]
    frames[0].save(tmp_path / "data" / "c.gif", save_all=True, append_images=frames[1:], duration=100)
    message = [
        {"role": "user", "content": [{"type": "clip", "path": "c.gif"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "grey"},
    ]
    (tmp_path / "data" / "clips.jsonl").write_text(json.dumps({"id": "c", "messages": message}) + "\n")
    values["data"]["clips"] = {"type": "jsonl", "path": "data/clips.jsonl"}
    values["stages"][1]["data"]["clips"] = 1.0
    done = call("check", write(), "--deep")
    assert done.exit_code == 0, done.output


def test_a_part_that_computes_with_its_own_weights_when_it_is_built_is_checked_too(call, own, tmp_path):
    """It cannot be built on the meta device, so the run is composed in memory."""
    values, write = own
    (tmp_path / "own.py").write_text(
        "from omniloom.projectors.dense import MLP\n"
        "class Scaled(MLP):\n"
        "    def __init__(self, in_dim, out_dim):\n"
        "        super().__init__(in_dim, out_dim)\n"
        "        self.scale = float(next(self.parameters()).detach().abs().max())\n"
    )
    values["modalities"]["image"]["in"]["projector"] = [{"type": "own.py:Scaled"}]
    done = call("check", write())
    assert done.exit_code == 0, done.output

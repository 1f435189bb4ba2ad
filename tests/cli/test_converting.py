"""Published weights in other formats."""

import json

import pytest
import torch
from safetensors.torch import load_file

from omniloom.files import sha256_of_file


class Payload:
    """What a checkpoint must not be able to run."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def saved(path, content):
    torch.save(content, path)
    return path


def test_a_pickled_state_dict_becomes_safetensors_with_its_hashes(call, tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    source = saved(tmp_path / "a.pth", {"one": shared, "two": shared.T, "half": torch.ones(2, dtype=torch.bfloat16)})
    done = call("convert", source, tmp_path / "out")
    assert done.exit_code == 0, done.output
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["one"], shared) and torch.equal(found["two"], shared.T)
    assert found["half"].dtype == torch.bfloat16
    record = json.loads((tmp_path / "out" / "model.json").read_text())
    assert record["source"] == {"file": "a.pth", "bytes": source.stat().st_size, "sha256": sha256_of_file(source)}
    assert record["results"][0]["sha256"] == sha256_of_file(tmp_path / "out" / "model.safetensors")
    assert record["tensors"] == 3 and record["parameters"] == 14
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.safetensors"]


def test_the_set_of_tensors_is_found_or_chosen(call, tmp_path):
    content = {"epoch": 3, "state_dict": {"w": torch.ones(1)}, "ema": {"w": torch.zeros(1)}}
    source = saved(tmp_path / "a.pt", content)
    assert call("convert", source, tmp_path / "w.safetensors").exit_code == 0
    assert load_file(tmp_path / "w.safetensors")["w"].item() == 1
    assert call("convert", source, tmp_path / "ema.safetensors", "--key", "ema").exit_code == 0
    assert load_file(tmp_path / "ema.safetensors")["w"].item() == 0
    done = call("convert", source, tmp_path / "x.safetensors", "--key", "exa")
    assert done.exit_code == 2 and "state_dict, ema" in done.stderr
    twice = saved(tmp_path / "b.pt", {"first": {"w": torch.ones(1)}, "second": {"w": torch.ones(1)}})
    done = call("convert", twice, tmp_path / "y.safetensors")
    assert done.exit_code == 2 and "--key" in done.stderr


@pytest.mark.parametrize("content", ["code", "text", "cut", "nothing"])
def test_what_is_no_checkpoint_of_tensors_is_refused_in_one_line(call, tmp_path, content):
    source = tmp_path / "bad.pt"
    if content == "code":
        saved(source, {"w": torch.ones(1), "x": Payload()})
    elif content == "cut":
        source.write_bytes(saved(source, {"w": torch.ones(1000)}).read_bytes()[:500])
    else:
        source.write_bytes(b"hello" if content == "text" else b"")
    done = call("convert", source, tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: cannot convert {source}: ") and done.stderr.count("\n") == 1
    assert "executed" not in done.output
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_overwritten_and_other_files_are_refused(call, tmp_path):
    source = saved(tmp_path / "a.pt", {"w": torch.ones(1)})
    target = tmp_path / "w.safetensors"
    target.write_text("precious")
    done = call("convert", source, target)
    assert done.exit_code == 2 and target.read_text() == "precious"
    (tmp_path / "a.zip").write_text("")
    assert "Known: .gguf" in call("convert", tmp_path / "a.zip", tmp_path / "o").stderr
    assert call("convert", tmp_path / "none.pt", tmp_path / "o").exit_code == 2


def test_a_damaged_gguf_is_refused_in_one_line(call, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF not really")
    done = call("convert", tmp_path / "a.gguf", tmp_path / "out")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()

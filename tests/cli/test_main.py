"""Help is light; errors are one line; the shell gets the right number."""

import os
import signal
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "pydantic", "numpy", "yaml", "PIL")
COMMANDS = [
    ["list"],
    ["show"],
    ["new"],
    ["new", "modality"],
    ["new", "run"],
    ["check"],
    ["train"],
    ["eval"],
    ["report"],
    ["chat"],
    ["predict"],
    ["quickstart"],
    ["convert"],
    ["import"],
]


def test_help_of_every_command_imports_nothing_heavy():
    code = f"""
import sys
from omniloom.cli.main import app
for command in {[[], *COMMANDS]}:
    try:
        app([*command, "--help"], prog_name="omniloom")
    except SystemExit as end:
        assert end.code == 0, command
loaded = [name for name in {HEAVY} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: omniloom") == len(COMMANDS) + 1


def test_version_is_printed(call):
    assert call("--version").stdout.startswith("omniloom ")


@pytest.mark.parametrize("args", [["bogus"], ["train"], ["predict", "x", "y", "z", "--batch", "many"], ["new"]])
def test_a_wrong_call_is_one_line_and_exits_with_2(call, args):
    done = call(*args)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_error_is_one_line_with_file_and_line(call, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        "name: bad\nbackbone: {id: x}\nmodalities: {a: {payload: image, out: {generator: voice}}}\nsed: 1\n"
    )
    done = call("train", file)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {file}:4: ") and "Did you mean 'seed'?" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.output


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_debug_shows_the_traceback_wherever_it_is_asked_for(call, monkeypatch, place):
    if place == "environment":
        monkeypatch.setenv("OMNILOOM_DEBUG", "1")
    args = [*["--debug"] * (place == "before"), "show", "nothing-here", *["--debug"] * (place == "after")]
    done = call(*args)
    assert done.exit_code == 2
    assert "Traceback" in done.stderr and "ConfigError" in done.stderr


def test_a_defect_of_a_part_says_how_to_see_more(call, tmp_path):
    (tmp_path / "odd.py").write_text(
        "from omniloom.encoders import Encoder\n"
        "class Odd(Encoder):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.out_dim = {}['width']\n"
        "    forward = out_shape = minimal_raw = lambda self, x=None: None\n"
    )
    from omniloom.testing import tiny_language_model

    tiny_language_model(tmp_path / "language-model")
    (tmp_path / "run.yaml").write_text(
        "name: odd\nbackbone: {id: ./language-model}\n"
        "modalities: {image: {payload: image, in: {processor: image, encoder: 'odd.py:Odd'}}}\n"
    )
    done = call("show", tmp_path / "run.yaml")
    assert done.exit_code == 70
    assert done.stderr.startswith("failed: KeyError: 'width'") and "--debug" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_the_users_to_fix(call, tmp_path, run):
    done = call("predict", run, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert done.exit_code == 2
    assert "there is no such file" in done.stderr


def test_an_interrupted_training_exits_with_130_and_says_how_to_go_on(tiny, tmp_path):
    command = [sys.executable, "-m", "omniloom", "train", str(tiny), "--out", str(tmp_path / "run")]
    command += ["--set", "stages.codec.steps=100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stdout is not None
    assert process.stdout.readline().startswith("stage codec: 100000 steps")
    told = ""
    for _ in range(4):  # Python drops an interrupt that reaches it in a destructor
        process.send_signal(signal.SIGINT)
        try:
            _, told = process.communicate(timeout=30)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 130, told
    assert "interrupted" in told and "the same command goes on" in told and "Traceback" not in told

"""`omniloom import` takes a published model over."""

import transformers

from tests.published.models import stirred, write
from tests.published.test_llava import PROCESSOR, TEMPLATE, config


def test_a_published_model_becomes_a_run_and_is_described(call, tmp_path):
    theirs = stirred(transformers.LlavaForConditionalGeneration(config()))
    write(tmp_path / "llava", theirs, ["<image>"], TEMPLATE, preprocessor_config=PROCESSOR)
    done = call("import", tmp_path / "llava", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "image" in done.stdout and "hub, hub_vision, mlp" in done.stdout
    assert (tmp_path / "run" / "manifest.json").is_file()
    again = call("import", tmp_path / "llava", "--out", tmp_path / "run")
    assert again.exit_code == 2 and "is there already" in again.stderr


def test_an_unknown_dtype_is_told_before_anything_is_read(call, tmp_path):
    done = call("import", tmp_path, "--dtype", "int4")
    assert done.exit_code == 2 and "--dtype is 'int4'" in done.stderr

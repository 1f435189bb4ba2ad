"""Flags for every input, in the order they are written."""

import pytest
import typer

from omniloom.cli.chat_arguments import _sorted, input_named, output_named, parts_of
from omniloom.config import RunConfig
from omniloom.errors import ConfigError

TAKES_VALUE = {"--seed": True, "--json": False, "--out": True}


def rows(**kinds):
    """A run whose inputs are of these kinds."""
    parts = {"processor": "p", "encoder": "e"}
    table = {name: {"payload": kind, "in": parts} for name, kind in kinds.items()}
    table["voice"] = {"payload": "audio", "out": {"generator": "voice"}}
    return RunConfig.model_validate({"name": "x", "backbone": {"id": "x"}, "modalities": table})


def test_items_and_prompts_keep_their_order_among_other_options():
    args = ["run", "--b", "1", "-p", "x", "--json", "--a=2", "--seed", "3", "-py", "--b", "4", "--prompt=z"]
    rest, given = _sorted(args, TAKES_VALUE)
    assert rest == ["run", "--json", "--seed", "3"]
    assert [(part.name, part.value) for part in given] == [
        ("b", "1"),
        (None, "x"),
        ("a", "2"),
        (None, "y"),
        ("b", "4"),
        (None, "z"),
    ]


def test_a_modality_named_like_an_option_is_reached_by_item():
    rest, given = _sorted(["--item", "seed=a.wav", "--seed", "1"], TAKES_VALUE)
    assert rest == ["--seed", "1"] and given[0].name == "seed" and given[0].value == "a.wav"


def test_a_text_may_look_like_a_flag():
    assert _sorted(["-p", "--image"], TAKES_VALUE)[1][0].value == "--image"


@pytest.mark.parametrize("args", [["--image"], ["-p"], ["--item", "image"], ["--item", "=x"]])
def test_a_flag_without_its_value_is_refused(args):
    with pytest.raises(typer.BadParameter):
        _sorted(args, TAKES_VALUE)


def test_an_input_is_found_by_name_then_by_the_kind_it_alone_reads():
    config = rows(photo="image", speech="audio", eye_track="series")
    assert input_named("photo", config, "--photo") == "photo"
    assert input_named("image", config, "--image") == "photo"
    assert input_named("audio", config, "--audio") == "speech"
    assert output_named("audio", config) == "voice"
    assert _sorted(["--eye-track", "x"], {})[1][0].name == "eye_track"


def test_a_kind_that_two_inputs_read_is_ambiguous():
    with pytest.raises(ConfigError, match=r"--audio is ambiguous: speech and music .* Write --speech or --music"):
        input_named("audio", rows(speech="audio", music="audio"), "--audio")


def test_an_unknown_flag_lists_the_inputs_of_the_run():
    with pytest.raises(
        ConfigError, match=r"--speach is no option .* speech \(audio\), image\. Did you mean 'speech'\?"
    ):
        input_named("speach", rows(speech="audio", image="image"), "--speach")


def test_an_output_is_no_input():
    with pytest.raises(ConfigError, match="no option and no input"):
        input_named("voice", rows(image="image"), "--voice")


def test_a_file_that_is_not_there_is_told_before_any_model_is_loaded(tmp_path):
    given = _sorted(["--image", str(tmp_path / "no.png")], {})[1]
    with pytest.raises(ConfigError, match=r"--image: there is no file"):
        parts_of(given, rows(image="image"))

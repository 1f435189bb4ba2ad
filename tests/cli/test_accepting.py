"""Counts written into a run file, and nothing else changed in it."""

from pathlib import Path

import pytest

from omniloom.cli.accepting import with_counts
from omniloom.config import load_run
from omniloom.errors import ConfigError

BLOCK = """\
# A run.
stages:
  - name: one        # first
    train:           # what learns
      - "*/projector"
      # and this
      - backbone  # all of it

    data: {a: 1}     # source
  - name: two
    train: ["*"]   # everything
    parameters: 7    # recorded
    steps: 3
# the end
"""


def test_counts_are_put_in_and_comments_stay():
    result = with_counts(BLOCK, [12, 34], Path("run.yaml"))
    assert result == BLOCK.replace("# all of it\n", "# all of it\n    parameters: 12\n").replace("7    #", "34    #")


def test_counts_go_into_stages_of_one_line():
    text = "stages: [{name: a, train: [x, y], steps: 1}, {name: b, parameters: null, train: z}]  # two\n"
    expected = (
        "stages: [{name: a, train: [x, y], parameters: 5, steps: 1}, {name: b, parameters: 6, train: z}]  # two\n"
    )
    assert with_counts(text, [5, 6], Path("run.yaml")) == expected


def test_an_empty_count_is_filled_and_windows_lines_stay():
    text = "stages:\r\n- train: [a]\r\n  parameters:\r\n- train: [b]"
    assert with_counts(text, [1, 2], Path("r")) == (
        "stages:\r\n- train: [a]\r\n  parameters: 1\r\n- train: [b]\r\n  parameters: 2\r\n"
    ).replace("[b]\r\n  parameters: 2\r\n", "[b]\n  parameters: 2\n")


@pytest.mark.parametrize(
    "text",
    ["name: x\n", "stages: [{train: [a]}]\n", "stages:\n- &a {train: [b]}\n- *a\n"],
    ids=["no stages", "another number", "an alias"],
)
def test_stages_that_are_not_there_are_refused(text):
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        with_counts(text, [1, 2], Path("run.yaml"))


def test_show_accept_records_what_training_then_checks(call, tiny):
    text = tiny.read_text()
    file = tiny.with_name("accepted.yaml")
    file.write_text("# My run.\n" + text.replace("  name: align", "  # the first\n  name: align"))
    before = [line for line in file.read_text().splitlines()]
    done = call("show", file, "--accept")
    assert done.exit_code == 0, done.output
    after = file.read_text().splitlines()
    assert [line for line in after if "parameters:" not in line] == before
    stages = load_run(file).config.stages
    assert all(stage.parameters for stage in stages)
    assert f"{stages[1].parameters:,} parameters" in done.stdout
    assert "recorded already" in call("show", file, "--accept").stdout
    assert file.read_text().splitlines() == after
    assert "as recorded" in call("show", file).stdout


def test_counts_of_values_that_are_not_in_the_file_are_not_accepted(call, tiny, run):
    before = tiny.read_text()
    done = call("show", tiny, "--accept", "--set", "stages.0.steps=3")
    assert done.exit_code == 2 and "--set" in done.stderr
    assert tiny.read_text() == before
    done = call("show", run, "--accept")
    assert done.exit_code == 2 and "trained" in done.stderr

"""Pictures on a terminal."""

import io

import numpy as np
from rich.console import Console

from omniloom.cli import answers
from omniloom.media import Audio, Image


def on_terminal(monkeypatch):
    out = io.StringIO()
    screen = Console(file=out, force_terminal=True, color_system="truecolor", width=80)
    monkeypatch.setattr(answers, "console", lambda: screen)
    return out


def test_a_picture_is_shown_as_half_blocks_of_its_colours(monkeypatch):
    out = on_terminal(monkeypatch)
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[::2] = (255, 0, 0)
    answers._show_picture(Image(pixels))
    assert out.getvalue().count("▀") == 16 * 8
    assert "38;2;255;0;0;48;2;0;0;0" in out.getvalue()


def test_a_huge_or_narrow_picture_fits_the_terminal(monkeypatch):
    for shape in ((3, 1000, 3), (2000, 3, 3), (1, 1, 3)):
        out = on_terminal(monkeypatch)
        answers._show_picture(Image(np.zeros(shape, np.uint8)))
        lines = out.getvalue().splitlines()
        assert 1 <= len(lines) <= 48 and all(line.count("▀") <= 48 for line in lines)


def test_what_is_no_picture_or_no_terminal_is_not_drawn(monkeypatch, capsys):
    out = on_terminal(monkeypatch)
    answers._show_picture(Audio(np.zeros((1, 10), np.float32), 16000))
    assert out.getvalue() == ""
    monkeypatch.undo()
    answers._show_picture(Image(np.zeros((4, 4, 3), np.uint8)))
    assert capsys.readouterr().out == ""

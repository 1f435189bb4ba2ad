"""What leaves the block around a foreign decoder."""

from __future__ import annotations

import av
import pytest

from omniloom.errors import MediaError
from omniloom.media.codes import foreign_decoder, invalid, too_large


@pytest.mark.parametrize(
    "error", [OSError("at 0x7f00"), ValueError("x"), av.error.MemoryError(12, "x"), SyntaxError("y")]
)
def test_a_decoder_s_failure_becomes_our_constant_text(error: Exception) -> None:
    with pytest.raises(MediaError) as caught, foreign_decoder("invalid_image", "broken."):
        raise error
    assert (caught.value.code, caught.value.message) == ("invalid_image", "broken.")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [MediaError("image_too_large", "x"), MemoryError(), KeyboardInterrupt()])
def test_our_own_errors_and_a_full_memory_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, foreign_decoder("invalid_image", "broken."):
        raise error
    assert caught.value is error


def test_kinds_without_own_codes_share_one() -> None:
    assert (invalid("audio"), too_large("audio")) == ("invalid_audio", "audio_too_large")
    assert (invalid("smell"), too_large("smell")) == ("invalid_media", "media_too_large")

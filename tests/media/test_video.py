"""Videos through the gateway: real times, declared sampling, lying headers, playlists, sound beside pictures."""

from __future__ import annotations

import base64
import struct

import numpy as np
import PIL.Image
import pytest
import torch

from omniloom.errors import MediaError
from omniloom.media import Audio, Limits, Video, load

from .makers import encode_audio, encode_image, encode_video, noise_image, tone


def refusal(source: object, **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, "video", **options)
    return caught.value


def greys(video: Video) -> list[int]:
    """The number of each frame, as `encode_video` painted it."""
    return [round(float(frame.mean()) / 15) for frame in video.frames]


CONTAINERS = [("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mov", "mpeg4")]


@pytest.mark.parametrize(("fmt", "codec"), CONTAINERS)
def test_every_container_gives_its_frames_and_times(fmt: str, codec: str) -> None:
    video = load(encode_video(fmt=fmt, codec=codec), "video")
    assert video.frames.shape == (8, 24, 32, 3)
    assert greys(video) == list(range(8))
    assert np.allclose(video.times_s, np.arange(8) / 10, atol=1e-3)
    assert video.audio is None


@pytest.mark.parametrize(
    "content", [b"\x00" * 200, b"\x1aE\xdf\xa3" + b"x" * 90, b"not a video at all", b"\xff\xd8\xff\xe0"]
)
def test_what_is_no_video_is_refused(content: bytes) -> None:
    assert refusal(content).code in ("unsupported_media_type", "invalid_video")


def test_an_mp4_of_sound_alone_holds_no_video() -> None:
    assert refusal(encode_video(codec=None, with_sound_s=0.2)).code == "no_video_stream"


def test_a_wav_is_no_video() -> None:
    assert refusal(encode_audio(tone())).code == "unsupported_media_type"


def test_a_video_that_declares_no_duration_loads_by_its_packets() -> None:
    live = encode_video(fmt="webm", codec="libvpx", options={"live": "1"})
    assert greys(load(live, "video")) == list(range(8))
    fragmented = encode_video(options={"movflags": "frag_keyframe+empty_moov"})
    assert greys(load(fragmented, "video")) == list(range(8))


def _with_stts_count(content: bytes, count: int) -> bytes:
    """The MP4 with another number of frames declared in its sample sizes table."""
    at = content.index(b"stsz") + 12
    return content[:at] + struct.pack(">I", count) + content[at + 4 :]


@pytest.mark.parametrize("count", [0, 1, 7, 9, 100_000, 0xFFFFFFFF])
def test_a_declared_number_of_frames_is_never_believed(count: int) -> None:
    content = _with_stts_count(encode_video(), count)
    try:
        video = load(content, "video")
    except MediaError as error:
        assert error.code in ("invalid_video", "no_video_stream", "video_too_large")
    else:
        assert greys(video) == list(range(len(video.frames))) and len(video.frames) <= 8


def test_ten_hours_at_one_frame_per_second_are_refused() -> None:
    content = encode_video([index * 100_000 for index in range(8)])  # 700 s apart in eight frames
    assert refusal(content).code == "video_too_large"
    assert refusal(content, max_frames=4).code == "video_too_large"
    assert len(load(content, "video", limits=Limits(video_s=1000), max_frames=4).frames) == 4


def test_frames_of_too_many_pixels_are_refused() -> None:
    content = encode_video([0], size_px=(64, 48))
    assert refusal(content, limits=Limits(video_frame_pixels=64 * 48 - 1)).code == "video_too_large"


def test_a_forged_8k_size_is_never_believed() -> None:
    content = encode_video(codec="mpeg4")
    # width and height of the visual sample entry, 24 bytes behind its name (ISO 14496-12, section 12.1.3)
    at = content.index(b"mp4v") + 28
    forged = content[:at] + struct.pack(">HH", 7680, 4320) + content[at + 4 :]
    # The codec's own header decides what is allocated; the container's claim is refused or ignored, never believed.
    try:
        assert load(forged, "video").frames.shape == (8, 24, 32, 3)
    except MediaError as error:
        assert error.code in ("video_too_large", "invalid_video")


def test_a_thousand_frames_per_second_are_refused_unless_sampled() -> None:
    content = encode_video(list(range(300)), size_px=(16, 16))
    error = refusal(content)
    assert error.code == "video_too_large" and "300 frames" in error.message and "max_frames" in error.message
    assert len(load(content, "video", max_frames=10).frames) == 10
    assert refusal(content, max_frames=10, limits=Limits(video_source_frames=299)).code == "video_too_large"


def test_decoded_bytes_are_bounded_by_what_is_kept() -> None:
    content = encode_video()
    one = 24 * 32 * 3
    assert refusal(content, limits=Limits(video_decoded_bytes=8 * one - 1)).code == "video_too_large"
    assert len(load(content, "video", limits=Limits(video_decoded_bytes=4 * one), max_frames=4).frames) == 4


def _frames_uri(parts: list[bytes], head: str = "data:video/jpeg;base64,") -> str:
    return head + ",".join(base64.b64encode(part).decode() for part in parts)


def test_fifty_thousand_pictures_in_a_data_uri_are_refused_before_any_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode(*args: object, **options: object) -> None:
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("omniloom.media.video.open_image", decode)
    monkeypatch.setattr("omniloom.media.sources.base64.b64decode", decode)
    uri = "data:video/jpeg;base64," + ",".join(["/9j/"] * 50_000)
    error = refusal(uri)
    assert error.code == "video_too_large" and "50000" in error.message
    assert refusal(uri, max_frames=8).code == "video_too_large"


def test_pictures_in_a_data_uri_are_frames_at_its_rate() -> None:
    parts = [encode_image(PIL.Image.new("RGB", (16, 8), (15 * i,) * 3), "JPEG", quality=95) for i in range(6)]
    video = load(_frames_uri(parts), "video")
    assert greys(video) == list(range(6)) and video.times_s.tolist() == [0, 1, 2, 3, 4, 5]
    faster = load(_frames_uri(parts, "data:video/jpeg;fps=4;base64,"), "video", max_frames=2)
    assert faster.times_s.tolist() == [0.25, 1.0]  # frames 1 and 4 of 6
    assert load(_frames_uri(parts[:1]), "video").frames.shape == (1, 8, 16, 3)
    assert refusal(_frames_uri([*parts, encode_image(noise_image(), "JPEG")])).code == "invalid_video"
    assert refusal(_frames_uri(parts, "data:video/jpeg;fps=0;base64,")).code == "invalid_video"
    assert refusal(_frames_uri([*parts, b""])).code == "empty_media"
    with pytest.raises(MediaError, match="invalid_image"):
        load(_frames_uri(parts).replace("video", "image"), "image")


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "hls file": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1/</BaseURL></MPD>',
    "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "concat list": b"concat:/etc/passwd|/etc/hosts",
    "subfile": b"subfile,,start,0,end,99,,:/etc/passwd",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "image2": b"/etc/%d.png",
}


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused_before_a_demuxer_runs(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def demux(*args: object, **options: object) -> None:
        raise AssertionError("a demuxer was asked")

    monkeypatch.setattr("omniloom.media.containers.av.open", demux)
    with pytest.raises(MediaError) as caught:
        load(PLAYLISTS[name], kind)
    assert caught.value.code == "unsupported_media_type"


@pytest.mark.parametrize("head", [b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00", b"\x1aE\xdf\xa3\x80"])
def test_a_playlist_behind_a_container_head_is_not_followed(head: bytes) -> None:
    assert refusal(head + PLAYLISTS["hls"]).code in ("invalid_video", "no_video_stream")


@pytest.mark.parametrize("cut", [0.97, 0.5])
@pytest.mark.parametrize(("fmt", "codec"), CONTAINERS)
def test_truncated_videos_are_refused(fmt: str, codec: str, cut: float) -> None:
    content = encode_video(fmt=fmt, codec=codec)
    assert refusal(content[: int(len(content) * cut)]).code == "invalid_video"


@pytest.mark.parametrize("b_frames", [0, 2])
def test_times_of_a_variable_rate_are_the_real_ones(b_frames: int) -> None:
    times_ms = [0, 10, 300, 350, 900, 1000, 1200, 2000]
    video = load(encode_video(times_ms, b_frames=b_frames), "video")
    assert np.allclose(video.times_s, np.array(times_ms) / 1000, atol=1e-3)
    assert greys(video) == list(range(8))


@pytest.mark.parametrize("fmt", ["mp4", "matroska"])
def test_negative_times_become_monotone_from_zero(fmt: str) -> None:
    video = load(encode_video([-300, -200, -100, 0, 100, 200, 300, 400], fmt=fmt, b_frames=2), "video")
    assert video.times_s[0] == 0 and (np.diff(video.times_s) > 0).all()
    assert np.allclose(np.diff(video.times_s), 0.1, atol=1e-3)
    # MP4 marks what lies before zero as not to be shown (an edit list); Matroska shifts all times.
    assert greys(video)[-1] == 7


def test_rotation_is_applied() -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24] = 255  # the upper left quarter is white
    # Display matrix degrees turn counter-clockwise: the upper left corner comes to the lower left.
    video = load(encode_video([0, 100], size_px=(48, 32), rotation=90, frames=[pixels] * 2), "video")
    assert video.frames.shape == (2, 48, 32, 3)
    assert (
        video.frames[0, 40, 4].min() > 200 and video.frames[0, 4, 4].max() < 50 and video.frames[0, 40, 28].max() < 50
    )


def test_max_frames_keeps_the_middles_of_equal_parts() -> None:
    video = load(encode_video(), "video", max_frames=4)
    # eight frames in four parts of two; the frame at or after the middle of each
    assert greys(video) == [1, 3, 5, 7]
    assert np.allclose(video.times_s, [0.1, 0.3, 0.5, 0.7], atol=1e-3)


def test_fps_keeps_the_frame_in_view_at_each_tick() -> None:
    assert greys(load(encode_video(), "video", fps=5)) == [0, 2, 4, 6]
    assert greys(load(encode_video(), "video", fps=4)) == [0, 2, 5, 7]
    assert greys(load(encode_video(), "video", fps=1)) == [0]


def test_a_rate_above_the_real_one_keeps_every_frame_once() -> None:
    assert greys(load(encode_video(), "video", fps=60)) == list(range(8))
    assert greys(load(encode_video(), "video", max_frames=100)) == list(range(8))


def test_max_frames_counts_frames_and_fps_counts_time() -> None:
    content = encode_video([0, 10, 20, 30, 40, 50, 60, 1000])
    assert greys(load(content, "video", max_frames=4)) == [1, 3, 5, 7]
    assert greys(load(content, "video", fps=2)) == [0, 6, 7]
    assert greys(load(content, "video", fps=2, max_frames=1)) == [6]


def test_both_options_together_never_exceed_max_frames() -> None:
    assert len(load(encode_video(), "video", fps=5, max_frames=2).frames) == 2


@pytest.mark.parametrize(("fmt", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264")])
@pytest.mark.parametrize("sound_s", [0.3, 2.0])
def test_sound_shorter_or_longer_than_the_pictures_is_kept_whole(fmt: str, codec: str, sound_s: float) -> None:
    video = load(encode_video(fmt=fmt, codec=codec, with_sound_s=sound_s), "video")
    assert len(video.frames) == 8 and video.audio.rate_hz == 48_000
    assert video.audio.duration_s == pytest.approx(sound_s, abs=0.04)


def test_sound_that_starts_later_is_preceded_by_silence() -> None:
    audio = load(encode_video(fmt="matroska", with_sound_s=0.3, sound_start_s=0.5), "video").audio
    loud = np.flatnonzero(np.abs(audio.samples[0]) > 0.1)
    assert loud[0] / 48_000 == pytest.approx(0.5, abs=0.03)
    assert audio.duration_s == pytest.approx(0.8, abs=0.04)


def test_pictures_that_start_later_keep_their_distance_to_the_sound() -> None:
    video = load(encode_video([500, 600, 700], fmt="matroska", with_sound_s=1.0), "video")
    assert video.times_s[0] == pytest.approx(0.5, abs=0.02)
    assert np.allclose(np.diff(video.times_s), 0.1, atol=2e-3)


def test_sound_limits_hold_inside_a_video() -> None:
    assert refusal(encode_video(with_sound_s=1.5), limits=Limits(audio_s=1)).code == "audio_too_long"


def test_a_codec_outside_the_list_is_refused() -> None:
    assert refusal(encode_video(fmt="matroska", codec="ffv1")).code == "unsupported_media_type"
    assert refusal(encode_video(fmt="matroska", codec="jpeg2000")).code == "unsupported_media_type"


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_animations_are_videos_with_their_own_durations(fmt: str) -> None:
    frames = [PIL.Image.new("RGB", (10, 6), (15 * i,) * 3) for i in range(5)]
    options = {"lossless": True} if fmt == "WEBP" else {}
    content = encode_image(
        frames[0], fmt, save_all=True, append_images=frames[1:], duration=[40, 50, 60, 70, 80], **options
    )
    video = load(content, "video")
    assert greys(video) == list(range(5))
    assert np.allclose(video.times_s, [0, 0.04, 0.09, 0.15, 0.22])
    assert len(load(content, "video", max_frames=2).frames) == 2
    assert refusal(content, limits=Limits(video_frames=4)).code == "video_too_large"
    assert refusal(content, limits=Limits(video_source_frames=4), max_frames=2).code == "video_too_large"
    assert refusal(content, limits=Limits(video_frame_pixels=59)).code == "video_too_large"
    assert refusal(content[: len(content) // 3]).code == "invalid_video"


def test_arrays_need_a_rate_or_times() -> None:
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    assert load({"frames": frames, "fps": 2}, "video").times_s.tolist() == [0, 0.5, 1]
    assert load({"frames": torch.from_numpy(frames), "times_s": [0, 1, 4]}, "video").times_s.tolist() == [0, 1, 4]
    assert refusal(frames).code == "unsupported_source"
    assert refusal({"frames": frames}).code == "unsupported_source"
    for wrong in ({"fps": 0}, {"fps": "2"}, {"times_s": [0, 2, 1]}, {"times_s": [0, 1]}, {"times_s": [-1, 0, 1]}):
        assert refusal({"frames": frames, **wrong}).code == "invalid_video"
    assert refusal({"frames": frames.astype(np.float32), "fps": 2}).code == "invalid_video"


def test_a_payload_is_sampled_by_the_same_policy() -> None:
    content = encode_video()
    assert load(load(content, "video"), "video", max_frames=4).digest() == load(content, "video", max_frames=4).digest()


def test_digest_covers_times_and_sound() -> None:
    frames, times_s = np.zeros((2, 4, 4, 3), np.uint8), np.array([0.0, 1.0])
    sound = Audio(np.zeros((1, 9), np.float32), 8000)
    videos = [Video(frames, times_s), Video(frames, times_s * 2), Video(frames, times_s, sound)]
    assert len({video.digest() for video in videos}) == 3

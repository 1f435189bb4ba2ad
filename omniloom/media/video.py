"""Videos: MP4 / MOV, WebM / Matroska, AVI, animated GIF / WebP / APNG and lists of pictures become `Video`.

The clip is walked twice: first its packets are counted and timed without decoding anything, and the limits are held
against that; then frames are decoded one by one and only the chosen ones are kept. What a header says about the number
of frames is never used. Which frames are kept is one declared policy, see `sampling.choose_times`.

Times are the real presentation times, shifted so that zero is the earlier of first frame and first sound sample; sound
that starts later is preceded by silence. Rotation is applied; pixels that are not square are left as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from av import VideoFrame
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import MediaError
from .animation import open_animation
from .audio import AudioCollector, decode_audio_stream, load_audio
from .codes import foreign_decoder
from .containers import VIDEO_CODECS, Container, open_container
from .formats import check_whole, require_format
from .image import open_image, to_rgb
from .limits import Limits
from .options import LoadOptions
from .payloads import Audio, Video
from .sampling import Clip, check_clip, in_view, plan
from .sources import EncodedFrames, Reader
from .tables import read_npz
from .tensors import to_numpy

__all__ = ["VIDEO_FORMATS", "load_video"]

VIDEO_FORMATS = ("mp4", "matroska", "avi", "gif", "webp", "png", "zip")
_BROKEN = "the video data are broken or truncated. Fetch or convert the file again."


def load_video(source: object, options: LoadOptions) -> Video:
    """Bytes, a Video, `EncodedFrames`, or {"frames": (F, Y, X, 3) uint8, "fps": number, or "times_s": (F,), "audio"}.

    With `max_frames` or `fps` in the options fewer frames are kept; without them a clip of more than `video_frames`
    frames is refused.

    Raises:
        MediaError: `unsupported_media_type`, `video_too_large`, `no_video_stream`, `invalid_video`,
            `unsupported_source`, and the audio codes for its sound.
    """
    limits = options.limits
    if isinstance(source, EncodedFrames):
        return _decode_pictures(source, options)
    if isinstance(source, Video):
        return _sample(source, options)
    if isinstance(source, bytes):
        limits.check_bytes("video", len(source))
        found = require_format(source, "video", VIDEO_FORMATS)
        check_whole(source, found, "invalid_video")
        if found in ("gif", "webp", "png"):
            return _decode_animation(source, options)
        if found == "zip":
            return _decode_arrays(source, options)
        return _decode_container(source, found, options)
    if isinstance(source, Mapping) and "frames" in source and ("fps" in source) != ("times_s" in source):
        return _sample(_from_arrays(source), options)
    message = 'a video is read from a path, bytes, a data URI or {"frames": array (F, Y, X, 3), "fps": number}.'
    raise MediaError("unsupported_source", message)


def _decode_container(content: bytes, found: str, options: LoadOptions) -> Video:
    clip, has_audio = _measure(content, found, options.limits)
    times_s, kept = plan(clip, options)
    frames, found_s = _gather(in_view(_decoded(content, found, clip), times_s), kept)
    zero_s = min(float(clip.times_s[0]), found_s[0])
    if not has_audio:
        return Video(frames, np.asarray(found_s) - zero_s)
    sound, audio_s = decode_audio_stream(open_container(content, found, "invalid_audio"), options.limits)
    zero_s = min(zero_s, audio_s)
    return Video(frames, np.asarray(found_s) - zero_s, _delayed(sound, audio_s - zero_s, options.limits))


def _gather(timed: Iterable[tuple[float, Callable[[], np.ndarray]]], kept: int) -> tuple[np.ndarray, list[float]]:
    """Decode the chosen frames, `kept` at most, into one array (F, Y, X, 3)."""
    found_s: list[float] = []
    frames = np.empty((0, 1, 1, 3), np.uint8)
    for time_s, decode in timed:
        pixels = decode()
        if not found_s:
            frames = np.empty((kept, *pixels.shape), np.uint8)
        if pixels.shape != frames.shape[1:]:
            raise MediaError("invalid_video", "the frames are not all of one size. Convert the video again.")
        if len(found_s) == kept:
            raise MediaError(
                "invalid_video", "decoding gives more frames than there are packets. Convert the video again."
            )
        frames[len(found_s)] = pixels
        found_s.append(time_s)
    if not found_s:
        raise MediaError("invalid_video", "no frame of the video can be decoded. Convert it again.")
    return frames if len(found_s) == kept else frames[: len(found_s)].copy(), found_s


def _measure(content: bytes, found: str, limits: Limits) -> tuple[Clip, bool]:
    """Walk the packets: count them, take their times, decode nothing."""
    times_s: list[float] = []
    ends_s: list[float] = []
    with open_container(content, found, "invalid_video") as container, foreign_decoder("invalid_video", _BROKEN):
        stream = _picture_stream(container)
        width_px, height_px = stream.codec_context.width, stream.codec_context.height
        check_clip(Clip(np.zeros(1), 0.0, width_px, height_px), 1, limits)
        if stream.codec_context.name not in VIDEO_CODECS:
            raise MediaError(
                "unsupported_media_type", "the video's codec is not on the list. Convert it to H.264 or VP9."
            )
        for packet in container.demux(stream):
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size == 0 or packet.is_discard or stamp is None or packet.time_base is None:
                continue
            times_s.append(float(stamp * packet.time_base))
            ends_s.append(times_s[-1] + float((packet.duration or 0) * packet.time_base))
            if len(times_s) > limits.video_source_frames:
                break
        has_audio = bool(container.streams.audio)
    if not times_s:
        raise MediaError("invalid_video", "the video has no timed frames. Fetch or convert the file again.")
    start_s, last_s = min(times_s), max(times_s)
    if max(ends_s) <= last_s and len(times_s) > 1:  # no durations: the last frame lasts as long as the mean one
        ends_s.append(last_s + (last_s - start_s) / (len(times_s) - 1))
    return Clip(np.sort(times_s), max(ends_s), width_px, height_px), has_audio


def _picture_stream(container: Container) -> VideoStream:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of an album is no video
            return stream
    raise MediaError("no_video_stream", "the container holds no moving pictures. Load it as audio.")


def _decoded(content: bytes, found: str, clip: Clip) -> Iterator[tuple[float, Callable[[], np.ndarray]]]:
    """(time, pixels when asked) of every frame in the order of view."""
    before_s = -math.inf
    with open_container(content, found, "invalid_video") as container, foreign_decoder("invalid_video", _BROKEN):
        stream = _picture_stream(container)
        stream.codec_context.thread_count = 1  # threads hold back frames: memory would grow with the cores
        for frame in container.decode(stream):
            stamp = frame.dts if frame.pts is None else frame.pts
            if stamp is None or frame.time_base is None or (time_s := float(stamp * frame.time_base)) < before_s:
                raise MediaError("invalid_video", "the times of the video run backwards. Convert it again.")
            if (frame.width, frame.height) != (clip.width_px, clip.height_px):
                raise MediaError("invalid_video", "the frames are not of the declared size. Convert the video again.")
            before_s = time_s
            yield time_s, partial(_upright, frame)


def _upright(frame: VideoFrame) -> np.ndarray:
    with foreign_decoder("invalid_video", _BROKEN):
        pixels = frame.to_ndarray(format="rgb24")
    # The display matrix gives counter-clockwise degrees; only quarter turns are pictures again.
    return np.rot90(pixels, k=round(frame.rotation / 90) % 4)


def _delayed(sound: Audio, delay_s: float, limits: Limits) -> Audio:
    """The sound with silence before it, so that its first sample is at time zero."""
    silent = round(delay_s * sound.rate_hz)
    if silent < 1:
        return sound
    AudioCollector(sound.rate_hz, len(sound.samples), sound.samples.shape[1] + silent, limits)
    return Audio(np.pad(sound.samples, ((0, 0), (silent, 0))), sound.rate_hz)


def _decode_animation(content: bytes, options: LoadOptions) -> Video:
    with open_animation(content, options.limits) as animation:
        clip = Clip(np.array(animation.starts_s), animation.end_s, *animation.size_px)
        times_s, kept = plan(clip, options)
        frames, found_s = _gather(in_view(animation.frames(), times_s), kept)
    return Video(frames, np.asarray(found_s))


def _decode_pictures(encoded: EncodedFrames, options: LoadOptions) -> Video:
    """A data URI of several pictures. Their number is held against `video_frames` before one of them is decoded."""
    limits = options.limits
    count, rate_hz = encoded.count, encoded.rate_hz
    if count > limits.video_frames:
        message = f"the data URI holds {count} frames; at most {limits.video_frames} are read. Send fewer."
        raise MediaError("video_too_large", message)
    reader = Reader("video", limits)
    parts = [reader.decode_base64(part.encode("ascii", "replace")) for part in encoded.body.split(",")]
    picture_limits = replace(limits, image_pixels=limits.video_frame_pixels)
    width_px, height_px = open_image(parts[0], picture_limits).size
    times_s, kept = plan(Clip(np.arange(count) / rate_hz, count / rate_hz, width_px, height_px), options)

    def decode(part: bytes) -> np.ndarray:
        return to_rgb(open_image(part, picture_limits))

    timed = [(index / rate_hz, partial(decode, part)) for index, part in enumerate(parts)]
    frames, found_s = _gather(in_view(timed, times_s), kept)
    return Video(frames, np.asarray(found_s))


def _decode_arrays(content: bytes, options: LoadOptions) -> Video:
    """A .npz file with `frames`, `times_s` and perhaps `samples` and `rate_hz`, as `write.save` makes it."""
    limit = options.limits.video_decoded_bytes
    arrays = read_npz(content, "video", ("frames", "times_s", "samples", "rate_hz"), limit, limit)
    if not {"frames", "times_s"} <= set(arrays) or ("samples" in arrays) != ("rate_hz" in arrays):
        raise MediaError("invalid_video", "the .npz file lacks 'frames', 'times_s', or one of 'samples' and 'rate_hz'.")
    source: dict[str, object] = {"frames": arrays["frames"], "times_s": arrays["times_s"]}
    if "samples" in arrays:
        sound = {"samples": arrays["samples"], "rate_hz": arrays["rate_hz"].reshape(-1)[0]}
        source["audio"] = load_audio(sound, LoadOptions(options.limits))
    return _sample(_from_arrays(source), options)


def _from_arrays(source: Mapping[str, object]) -> Video:
    frames, audio = source["frames"], source.get("audio")
    if set(source) - {"frames", "fps", "times_s", "audio"} or not isinstance(audio, Audio | None):
        message = 'a video of arrays holds "frames", "fps" or "times_s", and perhaps "audio", an Audio; nothing else.'
        raise MediaError("unsupported_source", message)
    with foreign_decoder("invalid_video", "frames are not one array (F, Y, X, 3)."):
        pixels = np.array(to_numpy(frames))
    if "times_s" in source:
        times_s = np.asarray(source["times_s"])
        if times_s.dtype.kind not in "fiu":
            raise MediaError("invalid_video", "times_s must be numbers.")
        return Video(pixels, times_s.astype(np.float64), audio)
    fps = source["fps"]
    if not isinstance(fps, int | float) or isinstance(fps, bool) or not (math.isfinite(fps) and fps > 0):
        raise MediaError("invalid_video", "fps must be a finite number above zero.")
    return Video(pixels, np.arange(len(pixels), dtype=np.float64) / fps, audio)


def _sample(video: Video, options: LoadOptions) -> Video:
    """A video that is in memory already, held against the limits and thinned by the same policy."""
    count, height_px, width_px, _ = video.frames.shape
    last_s = float(video.times_s[-1])
    end_s = last_s + (last_s - float(video.times_s[0])) / max(count - 1, 1)
    times_s, _ = plan(Clip(video.times_s, end_s, width_px, height_px), options)
    if video.audio is not None:
        load_audio(video.audio, LoadOptions(options.limits))
    if times_s is None:
        return video
    kept = [index for _, index in in_view(zip(video.times_s.tolist(), range(count), strict=True), times_s)]
    return Video(video.frames[kept], video.times_s[kept], video.audio)

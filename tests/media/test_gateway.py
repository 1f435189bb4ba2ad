"""Sources, addresses, paths, kinds and codes: what holds for every medium."""

from __future__ import annotations

import ast
import base64
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import omniloom.media
from omniloom.errors import ConfigError, MediaError
from omniloom.media import CODES, KINDS, Image, Limits, LoadOptions, Payload, check_parts, load, register_kind

from .makers import encode_audio, encode_image, noise_image, tone

ROOM = Path(omniloom.media.__file__).parent


def refusal(source: object, kind: str = "image", **options: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        load(source, kind, **options)
    return caught.value


def test_every_source_of_the_same_bytes_gives_the_same_payload(tmp_path: Path) -> None:
    content = encode_image(noise_image(), "PNG")
    text = base64.b64encode(content).decode()
    path = tmp_path / "a b.bin"
    path.write_bytes(content)
    sources = [
        content,
        bytearray(content),
        memoryview(content),
        path,
        str(path),
        {"path": str(path)},
        {"path": path},
        {"base64": text},
        {"data_uri": f"data:;base64,{text}"},
        f"data:image/png;base64,{text}",
        f"DATA:text/plain;charset=x;base64,{text}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in content),
    ]
    assert len({load(source, "image").digest() for source in sources}) == 1


ADDRESSES = [
    "http://127.0.0.1/x.png",
    "https://example.com/x.png",
    "HTTP://EXAMPLE.COM",
    "  http://example.com",
    "\thttp://example.com",
    "file:///etc/passwd",
    "ftp://a/b",
    "gopher://a",
    "jar:file:x",
    "blob:x",
    "s3://bucket/key",
    "concat:a|b",
    "subfile,,start,0,end,9,,:a",
    "//host/share/x.png",
    "\\\\host\\share\\x.png",
    "http:\\\\example.com",
]


@pytest.mark.parametrize("kind", ["image", "audio", "video", "points", "series", "map"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_and_nothing_is_sent(address: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(*args: object, **options: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", send)
    monkeypatch.setattr(socket, "getaddrinfo", send)
    expected = "file_unreadable" if address.startswith("subfile,") else "media_url_disabled"
    assert refusal(address, kind).code == expected
    assert refusal({"path": address}, kind).code == expected


def test_a_url_dict_is_refused_and_its_password_is_not_repeated() -> None:
    error = refusal({"url": "http://name:secret@host/x"})
    assert error.code == "media_url_disabled"
    assert "secret" not in str(error) + str(refusal("http://name:secret@host/x"))


def test_a_path_object_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("take:1.png").write_bytes(encode_image(noise_image(), "PNG"))
    assert load(Path("take:1.png"), "image").pixels.shape == (24, 32, 3)
    assert refusal("take:1.png").code == "media_url_disabled"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    content = encode_image(noise_image(), "PNG")
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "in.png").write_bytes(content)
    (tmp_path / "out.png").write_bytes(content)
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "out.png")
    (tmp_path / "root" / "inner.png").symlink_to(tmp_path / "root" / "in.png")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    (tmp_path / "root2").symlink_to(tmp_path / "root")
    return tmp_path


@pytest.mark.parametrize("path", ["in.png", "sub/../in.png", "./in.png", "inner.png"])
def test_relative_paths_resolve_below_root(tree: Path, path: str) -> None:
    assert load(path, "image", root=tree / "root").kind == "image"
    assert load(path, "image", root=tree / "root2").kind == "image"


@pytest.mark.parametrize("path", ["../out.png", "sub/../../out.png", "link.png", "up/out.png", "../none.png"])
@pytest.mark.parametrize("form", [str, Path, lambda path: {"path": path}])
def test_a_relative_path_cannot_leave_root(tree: Path, path: str, form) -> None:
    assert refusal(form(path), root=tree / "root").code == "path_outside_root"


def test_absolute_paths_pass_unless_they_are_held_to_root(tree: Path) -> None:
    outside, inside = tree / "out.png", tree / "root" / "in.png"
    assert load(outside, "image", root=tree / "root").kind == "image"
    assert refusal(outside, root=tree / "root", allow_absolute=False).code == "path_outside_root"
    assert refusal(tree / "root" / "link.png", root=tree / "root", allow_absolute=False).code == "path_outside_root"
    assert load(inside, "image", root=tree / "root", allow_absolute=False).kind == "image"
    assert load(tree / "root2" / "in.png", "image", root=tree / "root2", allow_absolute=False).kind == "image"


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for source in (
        tmp_path,
        tmp_path / "fifo",
        tmp_path / "loop",
        "/dev/zero",
        "/dev/null",
        "a\0b",
        "",
        tmp_path / "no",
    ):
        assert refusal(source).code == "file_unreadable", source


def test_a_file_is_measured_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    for kind in KINDS:
        assert refusal(path, kind).code == f"{kind}_too_large"


def test_the_message_names_the_path_as_it_was_given(tmp_path: Path) -> None:
    error = refusal("nowhere/cat.png", root=tmp_path)
    assert "'nowhere/cat.png'" in error.message and str(tmp_path) not in error.message


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("form", ["bytes", "path", "uri", "base64"])
def test_the_byte_limit_holds_on_every_way_in(kind: str, form: str, tmp_path: Path) -> None:
    content = b"x" * 1001
    text = base64.b64encode(content).decode()
    (tmp_path / "x").write_bytes(content)
    source = {"bytes": content, "path": tmp_path / "x", "uri": f"data:;base64,{text}", "base64": {"base64": text}}[form]
    assert refusal(source, kind, limits=Limits(**{f"{kind}_bytes": 1000})).code == f"{kind}_too_large"
    assert refusal(source, kind, limits=Limits(**{f"{kind}_bytes": 1001})).code != f"{kind}_too_large"


def test_an_unknown_kind_names_the_nearest_one() -> None:
    error = refusal(b"x", "imege")
    assert error.code == "unknown_kind" and "Did you mean 'image'?" in error.message


def test_a_payload_is_checked_and_returned() -> None:
    image = Image(np.zeros((4, 5, 3), np.uint8))
    assert load(image, "image") is image
    assert refusal(image, "image", limits=Limits(image_pixels=19)).code == "image_too_large"
    assert refusal(image, "audio").code == "wrong_payload"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("source", [None, 3, 2.5, object(), {"x": 1}, {}, {"path": "a", "base64": "b"}, {1, 2}])
def test_objects_that_hold_no_medium_are_refused(kind: str, source: object) -> None:
    assert refusal(source, kind).code == "unsupported_source"


@pytest.mark.parametrize("uri", ["data:", "data:image/png;base64", "data:image/png;base64,%%", "data:;base64,AA=A"])
def test_malformed_data_uris_are_refused(uri: str) -> None:
    assert refusal(uri).code in ("invalid_image", "empty_media")


def test_frame_options_are_for_video_only() -> None:
    for kind in ("image", "audio", "points", "series", "map"):
        assert refusal(b"x", kind, max_frames=3).code == "unsupported_option"
    for wrong in ({"max_frames": 0}, {"fps": 0}, {"fps": float("nan")}, {"max_frames": 2.5}):
        assert refusal(b"x", "video", **wrong).code == "unsupported_option"


@dataclass(frozen=True, eq=False)
class Touch(Payload):
    kind: ClassVar[str] = "touch"
    forces: np.ndarray


def load_touch(source: object, options: LoadOptions) -> Touch:
    return Touch(np.frombuffer(source, np.uint8)) if isinstance(source, bytes) else Touch(np.asarray(source))


def test_a_registered_kind_loads_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omniloom.media.gateway.KINDS", dict(KINDS))
    register_kind("touch", Touch, load_touch)
    register_kind("touch", Touch, load_touch)
    (tmp_path / "t").write_bytes(b"\1\2")
    for source in (b"\1\2", tmp_path / "t", "data:;base64,AQI=", np.array([1, 2], np.uint8)):
        assert load(source, "touch").digest() == load(b"\1\2", "touch").digest()
    assert refusal({"base64": "%"}, "touch").code == "invalid_media"
    assert refusal(b"abc", "touch", limits=Limits(media_bytes=2)).code == "media_too_large"
    with pytest.raises(ConfigError, match="registered already"):
        register_kind("touch", Touch, lambda source, options: Touch(np.zeros(1)))
    with pytest.raises(ConfigError, match="class attribute"):
        register_kind("smell", Touch, load_touch)


@pytest.mark.parametrize(("kind", "limit"), [("image", 64), ("audio", 16), ("video", 4)])
def test_more_parts_than_allowed_are_refused_by_name_and_number(kind: str, limit: int) -> None:
    check_parts([kind] * limit + ["points"] * 500, Limits())
    with pytest.raises(MediaError, match=rf"{limit + 1} items of kind '{kind}'; the limit is {limit}") as caught:
        check_parts([kind] * (limit + 1), Limits())
    assert caught.value.code == "too_many_parts"


def test_two_hundred_sounds_are_refused() -> None:
    with pytest.raises(MediaError, match="200 items of kind 'audio'"):
        check_parts(["audio"] * 200, Limits())


def test_limits_must_be_positive_numbers() -> None:
    for wrong in (0, -1, None, "3", True, float("nan")):
        with pytest.raises(ConfigError, match="image_pixels"):
            Limits(image_pixels=wrong)


def test_every_code_that_is_raised_is_in_the_catalogue() -> None:
    raised: set[str] = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                raised |= {
                    argument.value
                    for argument in node.args
                    if isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                    and name in ("MediaError", "foreign_decoder", "open_container", "check_whole", "_require")
                    and argument.value.isidentifier()
                }
    raised |= {f"invalid_{kind}" for kind in KINDS} | {f"{kind}_too_large" for kind in KINDS}
    raised |= {"invalid_media", "media_too_large"}
    raised -= {"avi", "mp4", "matroska"}
    assert raised <= set(CODES), raised - set(CODES)
    assert set(CODES) <= raised, set(CODES) - raised
    assert all(text and "\n" not in text and len(text) < 121 for text in CODES.values())


def test_no_path_leads_around_the_gateway_to_pickle_or_the_network() -> None:
    for path in ROOM.glob("*.py"):
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
        }
        assert not imported & {"pickle", "socket", "urllib3", "requests", "httpx", "http", "subprocess"}, path
        assert "np.load(" not in path.read_text(), path


def test_a_wrapped_error_keeps_no_foreign_text(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF\x10\x00\x00\x00WAVEgarbage")
    error = refusal(tmp_path / "a.wav", "audio")
    assert error.code == "invalid_audio" and "BytesIO" not in str(error) and "0x" not in str(error)


def test_sounds_load_by_content_whatever_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode_audio(tone(), fmt="FLAC"))
    assert load(tmp_path / "a.wav", "audio").rate_hz == 16_000

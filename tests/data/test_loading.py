"""References become payloads through the gateway; broken media follow the policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omniloom.data import MediaLoader, load_media, parse_messages, parse_record
from omniloom.errors import ConfigError, DataError, MediaError
from omniloom.media import Audio, Image, Limits, Series
from omniloom.sequence import Codes, Item, Sample, Shape

from .files import png, record, uri, wav

KINDS = {"image": "image", "sound": "audio", "imu": "series"}


def _sample(path: str, name: str = "a") -> Sample:
    return parse_record(record(path), name=name)


def _payloads(sample: Sample) -> list[object]:
    return [item.payload for _, item in sample.items()]


def test_every_reference_becomes_its_payload_with_its_digest_as_key(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    parts = [
        {"type": "image", "path": "a.png"},
        {"type": "image", "data": uri(png())},
        {"type": "image_url", "image_url": {"url": uri(png())}},
        {"type": "input_audio", "input_audio": {"data": uri(wav()).partition(",")[2], "format": "wav"}},
        {"type": "imu", "data": {"values": [[1.0, 2.0], [3.0, 4.0]], "rate_hz": 50}},
    ]
    sample = Sample("a", parse_messages([{"role": "user", "content": parts}]))
    loaded = load_media(sample, KINDS, root=tmp_path)
    assert [type(payload) for payload in _payloads(loaded)] == [Image, Image, Image, Audio, Series]
    assert loaded.modalities == ("image", "sound", "imu"), "OpenAI's types became the model's modalities"
    keys = [item.key for _, item in loaded.items()]
    assert keys[0] == keys[1] == keys[2] and len(set(keys)) == 3 and None not in keys
    assert _payloads(sample)[0] == {"path": "a.png"}, "the sample itself is unchanged"
    assert load_media(loaded, KINDS) == loaded, "payloads pass through"


def test_codes_pass_through(tmp_path: Path) -> None:
    codes = Codes((torch.zeros(3, dtype=torch.long),), Shape(3))
    sample = _sample("a.png").map_items(lambda turn, item: replace(item, payload=codes))
    assert _payloads(load_media(sample, KINDS, root=tmp_path)) == [codes]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png", "a/../../secret.png"])
def test_no_path_leaves_the_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(MediaError) as caught:
        load_media(_sample(path), KINDS, root=root)
    assert caught.value.code == "path_outside_root"


def test_an_absolute_path_is_read_where_the_root_is_the_whole_disk(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert isinstance(_payloads(load_media(_sample(str(tmp_path / "a.png")), KINDS, root="/"))[0], Image)


def test_an_address_is_refused() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    with pytest.raises(MediaError) as caught:
        load_media(Sample("a", parse_messages([{"role": "user", "content": parts}])), KINDS)
    assert caught.value.code == "media_url_disabled"


def test_an_unknown_modality_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"unknown modality 'imagee'. Did you mean 'image'\?"):
        load_media(Sample("a", _sample("a").turns).map_items(lambda turn, item: Item("imagee", item.payload)), KINDS)


def test_limits_hold(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(MediaError) as caught:
        load_media(_sample("a.png"), KINDS, Limits(image_bytes=10), tmp_path)
    assert caught.value.code == "image_too_large"


# -- the policy -----------------------------------------------------------------------------------------------


def test_by_default_a_broken_medium_stops_the_run_and_names_the_sample(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"sample 'a': .*'none\.png'"):
        MediaLoader(KINDS).load(_sample("none.png"), tmp_path)


def test_skipped_samples_are_counted_and_written_down_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(b"not a picture at all")
    loader = MediaLoader(KINDS, on_error="skip", quarantine=tmp_path / "run" / "quarantine.jsonl")
    results = [loader.load(_sample(path, path), tmp_path) for path in ("a.png", "b.png", "none.png", "b.png", "a.png")]
    assert [result is None for result in results] == [False, True, True, True, False]
    assert loader.loaded == 2 and loader.failures == {"unsupported_media_type": 2, "file_unreadable": 1}
    lines = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["id"], line["code"]) for line in lines] == [
        ("b.png", "unsupported_media_type"),
        ("none.png", "file_unreadable"),
    ]


def test_a_hundred_failures_in_a_row_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    loader = MediaLoader(KINDS, on_error="skip")
    for _ in range(99):
        loader.load(_sample("none.png"), tmp_path)
    loader.load(_sample("a.png"), tmp_path)
    for _ in range(99):
        loader.load(_sample("none.png"), tmp_path)
    with pytest.raises(DataError, match=r"100 samples in a row .*file_unreadable 199"):
        loader.load(_sample("none.png"), tmp_path)


def test_too_large_a_share_of_failures_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    loader = MediaLoader(KINDS, on_error="skip", window=50, share=0.1)

    def walk(every: int, count: int) -> None:
        for index in range(count):
            loader.load(_sample("none.png" if index % every == 0 else "a.png"), tmp_path)

    walk(10, 200)  # one in ten is allowed
    with pytest.raises(DataError, match="6 of the last 50 samples"):
        walk(5, 50)


def test_few_failures_at_the_start_do_not_stop_the_run(tmp_path: Path) -> None:
    loader = MediaLoader(KINDS, on_error="skip")
    for _ in range(12):
        assert loader.load(_sample("none.png"), tmp_path) is None


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError):
        MediaLoader(KINDS, on_error="ignore")  # type: ignore[arg-type]

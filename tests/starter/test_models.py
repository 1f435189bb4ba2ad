"""Converted models answer as they should; needs the packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from omniloom.encoders.efficientnet import EfficientNetLite0
from omniloom.errors import CheckpointError
from omniloom.starter import resolve
from omniloom.starter.ctranslate2 import read_model_bin


def test_a_model_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    name = b"WhisperSpec\0"
    head = (
        np.uint32(6).tobytes() + np.uint16(len(name)).tobytes() + name + np.uint32(3).tobytes() + np.uint32(1).tobytes()
    )
    array = (
        np.uint16(2).tobytes()
        + b"x\0"
        + np.uint8(1).tobytes()
        + np.uint32(4).tobytes()
        + np.uint8(0).tobytes()
        + np.uint32(16).tobytes()
    )
    whole = head + array + np.arange(4, dtype="<f4").tobytes() + np.uint32(0).tobytes()
    (tmp_path / "a.bin").write_bytes(whole)
    assert read_model_bin(tmp_path / "a.bin")["x"].tolist() == [0, 1, 2, 3]
    for cut in (3, len(head) + 3, len(whole) - 6):
        (tmp_path / "a.bin").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="ends within"):
            read_model_bin(tmp_path / "a.bin")
    (tmp_path / "a.bin").write_bytes(whole + b"!")
    with pytest.raises(CheckpointError, match="goes on after"):
        read_model_bin(tmp_path / "a.bin")


def test_efficientnet_gives_one_cell_for_every_32_pixels() -> None:
    model = EfficientNetLite0().eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1280, 7, 7)
        assert model(torch.zeros(1, 3, 65, 96)).shape == (1, 1280, 3, 3)
        assert model.classify(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)


@pytest.mark.packaged
def test_efficientnet_knows_a_flower_and_a_palace() -> None:
    from PIL import Image
    from safetensors.torch import load_file
    from sklearn.datasets import load_sample_image

    model = EfficientNetLite0().eval()
    model.load_state_dict(load_file(resolve("efficientnet-lite0") / "model.safetensors"), strict=True)
    images = []
    for name in ("flower.jpg", "china.jpg"):
        image = (
            Image.fromarray(load_sample_image(name))
            .crop((107, 0, 534, 427))
            .resize((224, 224), Image.Resampling.BICUBIC)
        )
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
    normal = (torch.stack(images) - torch.tensor(model.mean)[:, None, None]) / torch.tensor(model.std)[:, None, None]
    with torch.no_grad():
        assert model.classify(normal).argmax(-1).tolist() == [985, 698]  # ImageNet: daisy, palace


@pytest.mark.packaged
def test_the_language_model_knows_the_capital_of_france() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("smollm2-135m")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])
    sentence = (
        "The Moon is the only natural satellite of the Earth. It orbits our planet at a distance of about 384400 km."
    )
    text = tokenizer(sentence, return_tensors="pt")
    with torch.no_grad():
        assert model(**text, labels=text["input_ids"]).loss.exp() < 15  # measured 12.4


@pytest.mark.packaged
def test_whisper_writes_down_what_the_voice_says() -> None:
    import soxr
    from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

    from omniloom.starter import voice

    sound, rate_hz = voice().say("The quick brown fox jumps over the lazy dog.")
    assert rate_hz == 22050 and 1.5 < len(sound) / rate_hz < 4 and np.abs(sound).max() <= 1
    folder = resolve("whisper-tiny-en")
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    heard = AutoFeatureExtractor.from_pretrained(folder)(
        soxr.resample(sound, rate_hz, 16000), sampling_rate=16000, return_tensors="pt"
    )
    text = AutoTokenizer.from_pretrained(folder).decode(
        model.generate(heard.input_features)[0], skip_special_tokens=True
    )
    assert text.strip() == "The quick brown fox jumps over the lazy dog."


@pytest.mark.packaged
def test_the_voice_says_the_same_text_the_same_way() -> None:
    from omniloom.starter import voice

    speaker = voice()
    assert np.array_equal(speaker.say("Seven, please!")[0], speaker.say("Seven, please!")[0])
    assert speaker.say(" ... ")[0].shape == (0,)


@pytest.mark.packaged
def test_dinov2_equals_its_onnx_graph() -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from transformers import Dinov2Model

    from omniloom.starter.packages import fetch

    graph = onnx.load(str(fetch("dinov2-small-onnx") / "vit_s_focus.onnx"))
    last = [node.output[0] for node in graph.graph.node if node.name.startswith("/backbone/layernorm")][-1]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        hidden = Dinov2Model.from_pretrained(resolve("dinov2-small"))(torch.from_numpy(images)).last_hidden_state
    assert np.abs(session.run([last], {"input_image": images})[0] - hidden.numpy()).max() < 1e-4

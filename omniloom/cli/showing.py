"""`omniloom show`: what a run is made of, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniloom.cli.composing import open_run, shell_model
from omniloom.cli.terminal import columns, quiet_libraries, say, working

if TYPE_CHECKING:
    from omniloom.config import LoadedRun
    from omniloom.model import OmniModel

__all__ = ["show"]

_WHERE = {"inject": ", read inside the layers", "both": ", in slots and inside the layers"}


def show(
    run: Annotated[str, typer.Argument(help="A run folder, a run file, or a recipe's name.")],
    stage: Annotated[str | None, typer.Option("--stage", help="One stage, with every parameter it trains.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="The graph as Mermaid text, and nothing else.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Record in the run file how many parameters each stage trains.")
    ] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="a.b=value over the run file; repeatable.")] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="The plan of a sample of this source of the run, or of this JSONL.")
    ] = None,
    index: Annotated[int, typer.Option("--index", min=0, help="Which sample of it, from 0.")] = 0,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Import the run folder's own part files.")] = False,
) -> None:
    """Show a run: its parts with parameters and shapes, what trains in each stage, its graph, a sample's plan."""
    from omniloom.errors import ConfigError, did_you_mean

    loaded = open_run(run, sets=sets, allow_code=allow_code)
    names = [item.name for item in loaded.config.stages]
    if stage is not None and stage not in names:
        raise ConfigError(f"the run has no stage {stage!r}.{did_you_mean(stage, names)}")
    if accept and sets:
        raise ConfigError("--accept records what the run file itself says; leave --set out, or write it into the file.")
    with working("composing the model without its weights"):
        _refuse_wrong_parts(loaded)
        model, device = (None, "cpu") if plan is not None else shell_model(loaded)
    if plan is not None:
        return _show_plan(loaded, plan, index)
    assert model is not None
    if mermaid:
        from omniloom.model.graph import graph_of
        from omniloom.model.graph import mermaid as text_of

        return say(text_of(*graph_of(model, loaded.config)).rstrip())
    counts = {item.name: _trained(model, item.train) for item in loaded.config.stages}
    if accept:
        return _accept(loaded, {name: sum(by_component.values()) for name, by_component in counts.items()})
    if stage is not None:
        return _show_stage(model, loaded, stage)
    _show_run(model, loaded, counts)
    if device == "cpu":
        say("\n(a part cannot be built on the meta device, so all were built with random weights)")


def _refuse_wrong_parts(loaded: LoadedRun) -> None:
    from omniloom.config import check_parts
    from omniloom.errors import ConfigError

    wrong = check_parts(loaded)
    if wrong:
        raise ConfigError(wrong[0].message, file=wrong[0].file, line=wrong[0].line)


def _trained(model: OmniModel, globs: list[str]) -> dict[str, int]:
    """Component -> how many of its parameters a stage's globs select."""
    counts: dict[str, int] = {}
    for name, value in model.select(globs).items():
        component = name.partition(".")[0]
        counts[component] = counts.get(component, 0) + value.numel()
    return counts


def _show_run(model: OmniModel, loaded: LoadedRun, counts: dict[str, dict[str, int]]) -> None:
    config = loaded.config
    say(f"{config.name}: {config.backbone.id}, width {model.backbone.width}, {config.backbone.dtype}")
    say(f"from {', '.join(str(path) for path in loaded.sources)}\n")
    sizes = {name: sum(value.numel() for value in values.values()) for name, values in model.components().items()}
    rows: list[tuple[object, ...]] = [
        (
            name,
            _class_of(model, name),
            f"{size:,}",
            *(_share(counts[item.name].get(name, 0), size) for item in config.stages),
        )
        for name, size in sizes.items()
    ]
    trained = [f"{sum(counts[item.name].values()):,}" for item in config.stages]
    rows.append(("all", "", f"{sum(sizes.values()):,}", *trained))
    columns(("component", "part", "parameters", *counts), rows, right=range(2, 3 + len(counts)))
    say("\nrows x width of an item on its way from the processor to the language model:")
    for name, row in model.rows.items():
        if row.input is not None:
            say(f"  {name} ({row.payload_kind}): {_path(model, name, row.payload_kind, row.input)}")
        if row.output is not None:
            shape = row.output.codec.code_shape()
            slots = "any number of" if shape is None else row.output.layout.length(shape)
            size = row.output.block.size
            say(f"  {name} ({row.payload_kind}) <- {slots} slots of {size} codes, {type(row.output.codec).__name__}")
        if row.split:
            say(f"  {name} ({row.payload_kind}): taken apart into {', '.join(row.split)}")
    for fuser in model.planner.fusers:
        links = " -> ".join(type(part).__name__ for part in (fuser.fuser, *fuser.chain))
        say(f"  {fuser.name}: {' + '.join(fuser.inputs)} -> {links}{_WHERE.get(fuser.insert, '')}")
    for name, tool in model.tools.items():
        say(f"  {name} ({model.rows[name].payload_kind}) <- the answer's text, {type(tool).__name__}")
    for item, total in zip(config.stages, trained, strict=True):
        length = f"{item.steps} steps" if item.steps is not None else f"{item.minutes:g} minutes"
        mixture = ", ".join(f"{source} {weight:g}" for source, weight in item.data.items())
        recorded = "" if item.parameters is None else _recorded(item.parameters, sum(counts[item.name].values()))
        say(f"\nstage {item.name} (of {item.of}): {length} of {item.batch}, {total} parameters{recorded}")
        say(f"  trains {', '.join(item.train)}\n  on {mixture}")
    for name, task in config.evaluation.items():
        say(f"\nevaluation {name}: {task.metric} on {task.data}, probes {', '.join(task.probes) or 'none'}")


def _share(count: int, size: int) -> str:
    return "-" if not size else "frozen" if not count else "all" if count == size else f"{count:,}"


def _recorded(recorded: int, count: int) -> str:
    return ", as recorded" if recorded == count else f"; THE FILE RECORDS {recorded:,} (accept with --accept)"


def _class_of(model: OmniModel, component: str) -> str:
    if component == "backbone":
        return type(model.backbone).__name__
    return type(model.adapters[component] if component in model.adapters else model.parts[component]).__name__


def _path(model: OmniModel, name: str, kind: str, path: Any) -> str:
    """ "64 x 48 px: ImageProcessor 3072 -> PatchViT 16 x 128 -> Pool 4 x 128 -> MLP 4 x 576"."""
    from omniloom.encoders.ordinary import ordinary_item

    encoder: Any = model.parts[model.inputs[name][0]]
    what, taken, shape = ordinary_item(kind, path.processor, encoder)
    steps = [f"{what}: {type(path.processor).__name__} {_rows(taken)}"]
    steps.append(f"{type(encoder).__name__} {_rows(shape)} x {encoder.out_dim}")
    steps += [f"{type(part).__name__} {_rows(known)} x {part.out_dim}" for part, known in path.told(shape)]
    budget = "" if path.max_slots is None else f", at most {path.max_slots} slots ({path.over} more)"
    return " -> ".join(steps) + budget + _WHERE.get(path.insert, "")


def _rows(shape: Any) -> str:
    return "?" if shape is None else str(shape.len)


def _show_stage(model: OmniModel, loaded: LoadedRun, name: str) -> None:
    stage = next(item for item in loaded.config.stages if item.name == name)
    chosen = model.select(stage.train)
    rows = [(key, "x".join(map(str, value.shape)), f"{value.numel():,}") for key, value in chosen.items()]
    columns(("parameter", "shape", "numbers"), rows, right=(2,))
    say(f"{len(rows)} tensors, {sum(value.numel() for value in chosen.values()):,} parameters train in {name!r}")


def _accept(loaded: LoadedRun, counts: dict[str, int]) -> None:
    from omniloom.cli.accepting import accept_counts

    changed = accept_counts(loaded, list(counts.values()))
    for name, count in counts.items():
        say(f"{name}: {count:,} parameters" + ("" if name in changed else ", recorded already"))
    if changed:
        say(f"written into {loaded.sources[0]}")


def _show_plan(loaded: LoadedRun, place: str, index: int) -> None:
    """The plan of one sample as a table. The codec of a trained run makes its codes; another's are of random weights,
    which changes ids and no slot."""
    from pathlib import Path

    from omniloom.checkpoint import load_model
    from omniloom.data import open_source
    from omniloom.data.pipeline import Pipeline
    from omniloom.errors import ConfigError, DataError, did_you_mean
    from omniloom.model import compose

    config = loaded.config
    if place in config.data:
        source = open_source(config.data[place], loaded.base_folder)
    elif Path(place).is_file():
        source = open_source({"type": "jsonl", "path": str(Path(place).resolve())})
    else:
        raise ConfigError(
            f"the run has no source {place!r}, and there is no such file.{did_you_mean(place, config.data)}"
        )
    if index >= len(source):
        raise DataError(f"{place!r} has {len(source)} samples; --index counts from 0 and got {index}.")
    with working("loading the model"):
        quiet_libraries()
        if (loaded.base_folder / "manifest.json").is_file():
            model = load_model(loaded.base_folder, allow_code=True)[0]
        else:
            model = compose(config, base=loaded.base_folder, weights=False)
        pipeline = Pipeline(model)
        sample = pipeline.prepare(source[index], root=source.media_root)
        plan = pipeline.plans([sample])[0]
    file, line = source.where(index)
    say(f"sample {sample.id!r} of {file}" + (f":{line}" if line is not None else ""))
    say(plan.explain(decode=lambda ids: str(model.planner.tokenizer.decode(ids))))

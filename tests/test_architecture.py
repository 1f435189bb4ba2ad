"""The rooms of the house: who may import whom, what may be named where, and what every file owes its reader."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "omniloom"
FILES = sorted(path for path in ROOT.rglob("*.py"))
MODULES = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())

# A room imports from lines above its own; where a line is ordered, also from what stands left of it.
LINES: list[tuple[list[str], bool]] = [
    (["errors", "files", "registry", "config"], True),
    (["media", "layers", "sequence"], False),
    (["encoders", "codecs", "projectors", "interaction", "backbone"], False),
    (["generators"], False),
    (["planner", "published", "model", "checkpoint"], True),
    (["data"], False),
    (["eval", "train", "serve"], True),
    (["api"], False),
    (["testing", "starter", "recipes"], False),
    (["cli"], False),
]
# Doors of the package itself: nobody imports them but the outside.
DOORS = {"__init__", "__main__"}
# The lower rooms that the starter's packages of models and data stand on, and that the part table names lazily.
MODALITY_NAMES = {"image", "audio", "video", "speech", "points", "imu", "depth", "thermal"}
BLIND_ROOMS = {"sequence", "planner", "model", "checkpoint", "interaction", "backbone", "projectors", "train"}
FORBIDDEN_NAMES = ("utils", "helpers", "common", "manager")


def room_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of all modules a file imports, wherever in it."""
    package = ["omniloom", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def allowed_of(room: str) -> set[str]:
    allowed: set[str] = set()
    for rooms, is_ordered in LINES:
        if room in rooms:
            left = rooms[: rooms.index(room)] if is_ordered else []
            return allowed | {room, *left}
        allowed |= set(rooms)
    raise AssertionError(f"omniloom/{room} stands on no line of the plan of rooms")


@MODULES
def test_a_room_imports_only_from_the_rooms_above_it(path):
    room = room_of(path)
    if room in DOORS:
        return
    allowed = allowed_of(room)
    found = {name.split(".")[1] for name in imports_of(path) if name.startswith("omniloom.")}
    wrong = {name for name in found - allowed if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()}
    assert not wrong, f"omniloom.{room} may not import {sorted(wrong)}"


@pytest.mark.parametrize(
    "statement", ["import omniloom", "import omniloom.errors, omniloom.registry", "import omniloom.config"]
)
def test_the_package_loads_neither_torch_nor_transformers(statement):
    code = f"import sys; {statement}; print(sorted(set(sys.modules) & {{'torch', 'transformers', 'numpy'}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]" or (statement != "import omniloom" and "torch" not in found and "transformers" not in found)


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, value) of every string constant that is not a docstring."""
    tree = tree_of(path)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value


@pytest.mark.parametrize("room", sorted(BLIND_ROOMS))
def test_no_core_room_names_a_modality(room):
    found = [
        f"{path.name}:{line} {value!r}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, value in strings_of(path)
        if value in MODALITY_NAMES
    ]
    assert not found, f"modalities are rows of a table, not words of omniloom/{room}: {found}"


# What of transformers a file outside backbone and encoders may import.
_TRANSFORMERS = {
    "model/decode.py": {
        "LogitsProcessorList",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "Cache",
    },
    "layers/hub_loading.py": {"AutoConfig", "AutoModel", "PretrainedConfig", "PreTrainedModel", "utils", "logging"},
    "published/tensors.py": {"utils", "cached_file"},
    "projectors/hub_qformer.py": {
        "AutoTokenizer",
        "PretrainedConfig",
        "PreTrainedModel",
        "PreTrainedTokenizerBase",
        "modeling_blip_2",
        "Blip2PreTrainedModel",
        "Blip2QFormerModel",
        "modeling_instructblip",
        "InstructBlipPreTrainedModel",
        "InstructBlipQFormerModel",
    },
    "projectors/trunk.py": {"CLIPVisionModel", "PretrainedConfig", "PreTrainedModel", "ViTModel"},
    "testing/doubles.py": {
        "LlamaConfig",
        "LlamaForCausalLM",
        "PreTrainedTokenizerFast",
        "T5Config",
        "T5ForConditionalGeneration",
    },
}
_LANGUAGE_MODELS = ("CausalLM", "DynamicCache", "GenerationConfig")


@MODULES
def test_only_the_backbone_knows_the_language_models_of_transformers(path):
    name = path.relative_to(ROOT).as_posix()
    used = {item.split(".")[-1] for item in imports_of(path) if item.startswith("transformers.")}
    room = room_of(path)
    if room in ("backbone", "starter"):
        return
    if room == "encoders":
        assert not [item for item in used if any(word in item for word in _LANGUAGE_MODELS)]
    else:
        allowed = _TRANSFORMERS.get(name, {"logging", "utils"})
        assert used <= allowed, f"{name} imports {sorted(used - allowed)} of transformers"


@MODULES
def test_accelerate_is_imported_in_train_and_the_web_framework_in_serve(path):
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert "accelerate" not in roots or room_of(path) == "train"
    assert not roots & {"fastapi", "uvicorn", "starlette"} or room_of(path) == "serve"


def test_no_file_is_named_for_nothing():
    names = [path.relative_to(ROOT).as_posix() for path in FILES]
    assert not [name for name in names if any(word in Path(name).stem.split("_") for word in FORBIDDEN_NAMES)]


def public_of(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public functions, classes and their public methods; a method that a base has documented is not asked again."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef) and not node.bases:
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


@MODULES
def test_everything_public_is_documented(path):
    tree = tree_of(path)
    missing = [name for name, node in public_of(tree) if ast.get_docstring(node) is None]
    if path.read_text().strip() and ast.get_docstring(tree) is None:
        missing.insert(0, "the file")
    assert not missing, f"{path.relative_to(ROOT)}: no docstring at {missing}"


def exported_of(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return ast.literal_eval(node.value)
    return None


@MODULES
def test_what_a_file_exports_is_there_and_what_is_there_and_public_is_exported(path):
    tree = tree_of(path)
    exported = exported_of(tree)
    if exported is None:
        return
    assert len(set(exported)) == len(exported)
    name = ".".join(["omniloom", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    module = importlib.import_module(name)
    assert not [item for item in exported if not hasattr(module, item)]
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    assert classes <= set(exported), f"{path.relative_to(ROOT)} does not export {sorted(classes - set(exported))}"


@MODULES
def test_no_error_is_swallowed(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            is_broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            is_silent = all(isinstance(inner, ast.Pass | ast.Continue) for inner in node.body)
            assert not (is_broad and is_silent), f"{path.relative_to(ROOT)}:{node.lineno} swallows every error"


@MODULES
def test_a_file_is_one_idea_of_at_most_four_hundred_lines(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


@MODULES
def test_nothing_is_left_to_do(path):
    text = path.read_text()
    assert not [word for word in ("TODO", "FIXME", "XXX") if word in text]
    stubs = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node)
    ]
    assert not stubs

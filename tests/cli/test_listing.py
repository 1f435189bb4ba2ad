"""Everything there is, with its options."""

import json

from omniloom.config import recipes
from omniloom.registry import BUILT_IN, names


def test_a_room_is_listed_with_docstrings_and_options(call):
    done = call("list", "projectors")
    assert done.exit_code == 0
    for name in names("projectors"):
        assert f"\n  {name}  -  " in f"\n{done.stdout}"
    assert "layers: int = 2" in done.stdout
    assert "encoders:" not in done.stdout


def test_json_holds_every_part_recipe_and_packaged_asset(call):
    done = call("list", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found["rooms"]) == set(BUILT_IN)
    for room, parts in found["rooms"].items():
        assert [part["name"] for part in parts] == list(names(room))
        assert all(part["about"] or part["absent"] for part in parts), room
    mlp = next(part for part in found["rooms"]["projectors"] if part["name"] == "mlp")
    assert {"name": "layers", "type": "int", "default": 2, "is_required": False} in mlp["options"]
    assert [recipe["name"] for recipe in found["recipes"]] == recipes()
    assert all(entry["licence"] for entry in found["starter"]) and found["starter"]


def test_starter_assets_are_told_with_licence_and_state(call):
    done = call("list", "starter")
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if "smollm2-135m" in line)
    assert "Apache-2.0" in line and ("here" in line or "MB to fetch" in line or "absent" in line)


def test_an_unknown_room_names_the_known_ones(call):
    done = call("list", "encoder")
    assert done.exit_code == 2
    assert "Did you mean 'encoders'?" in done.stderr


def test_what_a_part_is_said_to_be_is_a_whole_sentence(call):
    found = json.loads(call("list", "--json").stdout)
    said = [part["about"] for parts in found["rooms"].values() for part in parts if not part["absent"]]
    said += [recipe["about"] for recipe in found["recipes"]]
    assert len(said) > 100
    assert not [text for text in said if not text.endswith((".", "?")) or "\n" in text]

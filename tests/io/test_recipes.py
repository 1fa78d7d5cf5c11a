"""Recipes: every preset goes into plain JSON and comes back, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import pytest
from cases import VECTORS

from diffeo.contexts import Classes, Image, Vector
from diffeo.errors import ConfigError
from diffeo.io.recipes import from_recipe, to_recipe
from diffeo.presets import MAF, PRESETS, Mixed, Preset, VectorPreset


def there_and_back(preset: Preset) -> Preset:
    return from_recipe(json.loads(json.dumps(to_recipe(preset))))


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"Mixed"}))
@pytest.mark.parametrize("context", [None, Vector(2), Classes(3)], ids=str)
def test_a_preset_comes_back(name: str, context: Any):
    kind = PRESETS[name]
    preset = kind(3 if name in VECTORS else (3, 8, 8), context)  # type: ignore[call-arg]
    recipe = to_recipe(preset)
    assert recipe["preset"] == name
    assert recipe["fields"].keys() == {f.name for f in fields(preset)}
    again = there_and_back(preset)
    assert again == preset
    assert hash(again) == hash(preset)
    assert type(again) is kind


def test_a_preset_without_a_context_comes_back():
    preset = Mixed(4, hidden=16, joint=0.25)
    assert to_recipe(preset)["fields"]["joint"] == 0.25
    assert there_and_back(preset) == preset


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - VECTORS.keys() - {"Mixed"}))
def test_an_image_as_context_comes_back(name: str):
    preset = PRESETS[name]((3, 8, 8), Image(1, 4, 4))  # type: ignore[call-arg]
    assert to_recipe(preset)["fields"]["context"] == {"kind": "Image", "channels": 1, "height": 4, "width": 4}
    assert there_and_back(preset) == preset


@pytest.mark.parametrize("name", VECTORS)
def test_missing_fields_take_their_defaults(name: str):
    assert from_recipe({"preset": name, "fields": {"features": 4}}) == VECTORS[name](4)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"features": 3, "width": 8}, "MAF has no field 'width'; it has context, features, hidden, layers"),
        ({"features": 3, "build": 1}, "no field 'build'"),
        ({"layers": 3}, "needs the field 'features'"),
        ({}, "needs the field 'features'"),
        ({"features": "3"}, "MAF.features must be a whole number"),
        ({"features": 3, "layers": 10**9}, "MAF.layers must be a whole number from 1 to 256"),
        ({"features": 3, "hidden": "wide"}, "MAF.hidden"),
        ({"features": 3, "hidden": [[8]]}, "MAF.hidden"),
        (
            {"features": 3, "context": {"kind": "Tokens", "size": 3}},
            "is not a context; known kinds: Vector, Classes, Image",
        ),
        ({"features": 3, "context": {"kind": "Vector"}}, "is not a context"),
        ({"features": 3, "context": {"kind": "Vector", "size": 3, "more": 1}}, "is not a context"),
        ({"features": 3, "context": {"kind": ["Vector"], "size": 3}}, "is not a context"),
        ({"features": 3, "context": {"kind": "Vector", "size": 10**9}}, "Vector.size"),
        ({"features": 3, "context": [2]}, "MAF.context must be"),
    ],
)
def test_fields_that_cannot_be(values: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        from_recipe({"preset": "MAF", "fields": values})


def test_a_preset_of_ones_own_has_no_recipe():
    @dataclass(frozen=True)
    class Own(VectorPreset):
        def bijection(self, context_features: int) -> Any: ...

    with pytest.raises(ConfigError, match="Own is not one of diffeo's presets"):
        to_recipe(Own(2))
    namesake = type("MAF", (Own,), {})
    assert namesake.__name__ == MAF.__name__
    with pytest.raises(ConfigError, match="MAF is not one of diffeo's presets"):
        to_recipe(namesake(2))

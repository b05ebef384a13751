"""Settings go to JSON and back, and unknown or ill-typed ones are refused in words."""

import dataclasses
import json

import pytest

from facerig_jax.inorig.config import BASE, PAPER, InorigConfig
from facerig_jax.io.serialize import from_plain, to_plain, with_overrides


@pytest.mark.parametrize("config", [BASE, PAPER])
def test_settings_survive_json(config):
    assert from_plain(InorigConfig, json.loads(json.dumps(to_plain(config)))) == config


def test_overrides_change_nested_fields_and_keep_types():
    changed = with_overrides(BASE, ["networks.image_size=128", "update=fixed", "inverse_distance=0", "steps=2"])
    assert changed.networks.image_size == 128
    assert (changed.update, changed.inverse_distance, changed.steps) == ("fixed", 0.0, 2)
    assert isinstance(changed.inverse_distance, float)
    assert with_overrides(BASE, {"networks.uv_sizes": [8, 16, 32]}).networks.uv_sizes == (8, 16, 32)
    assert (
        dataclasses.replace(changed, networks=BASE.networks, update="learned", inverse_distance=1e-3, steps=3) == BASE
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("networks.imagesize=3", "Did you mean networks.image_size"),
        ("stepz=3", "Did you mean steps"),
        ("steps=many", "steps: a value of type int is needed, got 'many'"),
        ("steps=True", "type int"),
        ("networks.uv_sizes=3", "a list is needed"),
        ("steps.more=3", "steps has no fields"),
        ("steps", "path.to.field=value"),
    ],
)
def test_bad_overrides_are_refused_in_words(override, message):
    with pytest.raises(ValueError, match=message):
        with_overrides(BASE, [override])

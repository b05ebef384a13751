"""Looks at synthetic subjects: a contact sheet, how often the detector finds them, and what they cost.

python -m experiments.synthesize --preview=out/people.png --count=64
python -m experiments.synthesize --what=detect --count=100     # found faces, and its landmarks against the imitated
python -m experiments.synthesize --what=speed
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

from absl import flags

from experiments import cli

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip
import numpy as np  # isort: skip

import facerig_jax  # isort: skip
from facerig_jax.synthetic import presets as synthetic_config  # isort: skip
from facerig_jax.synthetic.imitated_landmarks import imitate_landmarks  # isort: skip
from facerig_jax.synthetic.subject import make_subject  # isort: skip
from facerig_jax.detect import detect, load_detector  # isort: skip
from facerig_jax.io.files import write_image  # isort: skip
from facerig_jax.head.model import landmark_positions  # isort: skip

_WHAT = flags.DEFINE_enum("what", "preview", ["preview", "detect", "speed"], "A picture, or a table.")
_PREVIEW = flags.DEFINE_string("preview", "out/subjects.png", "Picture to write, PNG.")
_COUNT = flags.DEFINE_integer("count", 64, "How many people.", lower_bound=1)
_PRESET = flags.DEFINE_string("preset", "TRAIN", "A preset of synthetic.presets.")
_SIZE = flags.DEFINE_integer("size", 256, "Side of a photo, px, a multiple of 8.", lower_bound=64)
_SEED = flags.DEFINE_integer("seed", 900_000, "Of the people.")
REGIONS = {"brows": (70, 105, 334, 300), "eyes": (33, 133, 362, 263), "nose": (4, 98, 327), "lips": (61, 291, 0, 17)}


def main():
    """Writes the picture, or prints the table."""
    {"preview": preview, "detect": detection, "speed": speed}[_WHAT.value]()


def preset(**changes) -> synthetic_config.SubjectConfig:
    """The preset named on the command line, with changes."""
    known = {k: v for k, v in vars(synthetic_config).items() if isinstance(v, synthetic_config.SubjectConfig)}
    if _PRESET.value not in known:
        raise cli.UserError(f"--preset={_PRESET.value}: expected one of {', '.join(known)}.")
    return dataclasses.replace(known[_PRESET.value], size=_SIZE.value, **changes)


@functools.cache
def _head():
    return jax.tree.map(jnp.asarray, facerig_jax.load_head())


def preview():
    """One photo of each person, in a square sheet."""
    draw = jax.jit(make_subject, static_argnames="config")
    config = preset(n_views=1)
    photos = [np.asarray(draw(_head(), _SEED.value, i, config).images[0]) for i in range(_COUNT.value)]
    columns = int(np.ceil(np.sqrt(len(photos))))
    photos += [np.zeros_like(photos[0])] * (-len(photos) % columns)
    rows = [np.concatenate(photos[i : i + columns], 1) for i in range(0, len(photos), columns)]
    path = Path(_PREVIEW.value)
    write_image(path, np.concatenate(rows))
    print(f"{path}: {_COUNT.value} people, preset {_PRESET.value}, seed {_SEED.value}.")


@functools.partial(jax.jit, static_argnames="config")
def _find(head, params, seed, index, config):
    """The detector on a subject's photos: per view the yaw, whether the face was found, and landmark errors in mm."""
    subject = make_subject(head, seed, index, config)
    found = jax.lax.map(lambda image: detect(params, image), subject.images)
    exact = landmark_positions(head.landmarks_dense, subject.vertices_img)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), index), config.n_views)

    def imitate(key, verts, expression, pose, inverse):
        return imitate_landmarks(key, head, verts, subject.identity, expression, pose, inverse, config.size)

    imitated = jax.vmap(imitate)(keys, subject.vertices, subject.expression, subject.pose, subject.inverse_distance)
    scale = subject.pose[:, 3, None, None]
    middle = exact[:, 4, :2]
    box = found.box
    hit = found.found & (middle[:, 0] > box[:, 0]) & (middle[:, 0] < box[:, 2])
    hit = hit & (middle[:, 1] > box[:, 1]) & (middle[:, 1] < box[:, 3])
    return (
        jnp.rad2deg(subject.pose[:, 1]),
        hit,
        (found.landmarks - exact)[..., :2] / scale,
        (imitated - exact)[..., :2] / scale,
        head.landmarks_dense.weight,
    )


def detection():
    """Shares of found faces by yaw, without and with what covers them; real against imitated landmark errors."""
    bare = {"hair": 0.9, "headwear": 0.0, "glasses": 0.0, "hand": 0.0}
    params = jax.tree.map(jnp.asarray, load_detector())
    for name, changes in (("unoccluded", bare), ("with occluders", {})):
        config = preset(n_views=4, **changes)
        rows = [_find(_head(), params, _SEED.value, i, config) for i in range(_COUNT.value)]
        yaw, hit, real, imitated = (np.concatenate([np.asarray(row[k]) for row in rows]) for k in range(4))
        print(f"{name}, {len(yaw)} photos")
        for limit in (15, 45, 90):
            near = np.abs(yaw) < limit
            print(f"  |yaw| < {limit:2d}: found in {100 * hit[near].mean():5.1f} % of {near.sum()}")
        good, trusted = hit & (np.abs(yaw) < 45), np.asarray(rows[0][4]) > 0
        print("  landmark errors in mm, |yaw| < 45: rms, median; found by the detector | imitated")
        for region, points in {"all trusted": np.flatnonzero(trusted), **REGIONS}.items():
            print(f"  {region:12s} {_summary(real[good][:, points])} | {_summary(imitated[good][:, points])}")


def _summary(error: np.ndarray) -> str:
    size, bias = np.linalg.norm(error, axis=-1), error.mean((0, 1))
    rms = np.sqrt((size**2).mean())
    return f"{rms:5.2f} {np.median(size):5.2f}  bias ({bias[0]:+.2f}, {bias[1]:+.2f})"


def speed():
    """Time per photo at 4 photos a subject, after compilation."""
    draw = jax.jit(make_subject, static_argnames="config")
    config = preset(n_views=4)
    start = time.perf_counter()
    jax.block_until_ready(draw(_head(), _SEED.value, 0, config))
    print(f"{time.perf_counter() - start:.1f} s to compile")
    seconds = []
    for index in range(1, 9):
        start = time.perf_counter()
        jax.block_until_ready(draw(_head(), _SEED.value, index, config))
        seconds.append((time.perf_counter() - start) / config.n_views)
    print(f"{1e3 * np.median(seconds):.0f} ms per photo of {config.size} px (fastest {1e3 * min(seconds):.0f})")


if __name__ == "__main__":
    cli.run(main)

"""The goldens' dome-shaped morphable head and its inputs: what tests/data/recipe/recipe.py defines.

Units are the recipe's (micrometres, y up, z towards the camera); arrays keep its layout. Every vertex is visible from
the front.
"""

from pathlib import Path

from experiments.goldens import load_recipe

DATA = Path(__file__).parents[1] / "data"
recipe = load_recipe(DATA / "recipe")
face_model, inputs = recipe.face_model, recipe.inputs

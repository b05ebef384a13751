"""How jax.export writes the package's own types down, so that exported programs may take and give them."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax.export


@functools.cache
def register_type(kind: type) -> None:
    """Tells jax.export how to write a flax dataclass down: by its name, its static fields as JSON."""
    jax.export.register_pytree_node_serialization(
        kind,
        serialized_name=f"{kind.__module__}.{kind.__qualname__}",
        serialize_auxdata=lambda values: json.dumps(values).encode(),
        deserialize_auxdata=lambda text: _tuples(json.loads(text)),
        from_children=functools.partial(_build, kind),
    )


def _tuples(value):
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _build(kind: type, static: tuple, children):
    """An instance from the values of its static fields and its other fields, both in their order."""
    fields = dataclasses.fields(kind)
    names = [[f.name for f in fields if f.metadata.get("pytree_node", True) is node] for node in (True, False)]
    return kind(**dict(zip(names[0], children, strict=True)), **dict(zip(names[1], static, strict=True)))


def register_types(*modules) -> None:
    """Registers all flax dataclasses that these modules define."""
    for module in modules:
        for kind in list(vars(module).values()):
            if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "_flax_dataclass"):
                register_type(kind)

"""What mypy cannot see by itself: flax.struct.dataclass gives its classes `replace(**changes)`."""

from mypy.nodes import ARG_STAR2, Argument, Var
from mypy.plugin import Plugin
from mypy.plugins.common import add_method_to_class
from mypy.plugins.dataclasses import dataclass_tag_callback
from mypy.types import AnyType, TypeOfAny
from mypy.typevars import fill_typevars


def _add_replace(context) -> None:
    """Adds `def replace(self, **changes: Any) -> Self`, after what every dataclass gets."""
    dataclass_tag_callback(context)
    anything = AnyType(TypeOfAny.explicit)
    changes = Argument(Var("changes", anything), anything, None, ARG_STAR2)
    add_method_to_class(context.api, context.cls, "replace", [changes], fill_typevars(context.cls.info))


class FlaxStruct(Plugin):
    """Asks for `_add_replace` at the one decorator."""

    def get_class_decorator_hook(self, fullname: str):
        """The hook of a decorator, None for all others."""
        return _add_replace if fullname == "flax.struct.dataclass" else None


def plugin(version: str):
    """mypy's entry point."""
    return FlaxStruct

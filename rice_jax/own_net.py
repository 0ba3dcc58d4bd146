"""A net of the user's own as a configuration: its class becomes known by a name."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rice_jax import config, nets
from rice_jax.bounds import Bounds, Field, Real, Several, Switch, Text, Whole, checked
from rice_jax.errors import UserError

if TYPE_CHECKING:
    import ml_collections

_FLAX = ("parent", "name")
_TAKEN = ("weights", "narrowed", "grid")
_MODES = (*nets.LEARNS, *nets.STAYS)
_NUMBER = 10**12


def configuration(
    module: type,
    name: str = "",
    *,
    recipe: Mapping[str, Any] = MappingProxyType({}),
    frozen: tuple[str, ...] = (),
    output: str | int | Callable[[Any], Any] | None = None,
    **fields: Any,
) -> "ml_collections.ConfigDict":
    """The configuration of a net of one's own, for a file that is given as --config=FILE.

    Args:
        module: its class, Linen's or NNX's. It is called with images (N, H, W, 3) in [0, 1], and
            what its call takes of `train`, `training`, `is_training`, `deterministic` and
            `use_running_average`, of NNX of `rngs` too, and gives logits (N, classes). Its fields
            (of NNX what its class is made with, beside rngs), but for dtype, first_image and those
            five, are the configuration's under config.model: numbers, words, switches, or tuples of
            these.
            `classes` has to be one, or another of `nets.CLASSES`, which config.model.classes then
            is: the images decide it.
        name: of the net; by default the class's, in small letters.
        recipe: fields of the configuration that are not as in the study's, as 'train.schedule'.
        frozen: paths of layers that training leaves as they are.
        output: which of several outputs are the logits: a key, an attribute, an index, or a
            function of what the call returns. Nothing is learned from the others. Where the call
            gives an array alone, as some nets do but in training, a name is not looked for.
        **fields: what fields of the class are, where not as it says.

    Raises:
        UserError: no such class, one whose call needs what it is not given, a name that is taken,
            no field of classes, a field that can be none, a recipe with what is no field or out of
            its bounds, frozen paths that are none, or an output that is none or meant for a field.
    """
    if not isinstance(module, type) or not (_is_nnx(module) or dataclasses.is_dataclass(module)):
        raise UserError(f"{module!r} is no class of Linen or NNX: give the class, no instance")
    for needed in _needed(module):
        raise UserError(f"{module.__name__} is not called with {needed}: give it a default")
    name = name or module.__name__.lower()
    if name in nets.NETS or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"{name!r} is taken or no name: give letters, digits, '_' and '-'")
    if not (output is None or isinstance(output, str | int) or callable(output)):
        raise UserError(f"output={output!r}: give a key, an attribute, an index, or a function")
    own = _fields_of_model(module, fields, several_outputs=output is not None)
    _check_recipe(recipe, frozen)
    widths = {each: field.default for each, field in own.items()}
    nets.add(
        name,
        nets.Net(nets.OWN, widths, tuple(frozen), False, dict(recipe), module, own, output),
    )
    return config.default(name)


def _fields_of_model(
    module: type, given: Mapping[str, Any], *, several_outputs: bool
) -> dict[str, Field]:
    """What config.model has of a class; UserError for one that its fields do not fit."""
    values = _values(module, given)
    classes = nets.classes_field(values)
    values = {"classes" if each == classes else each: value for each, value in values.items()}
    own = {each: _field(each, value) for each, value in values.items()}
    if several_outputs and "output" in own:
        raise UserError(
            f"{module.__name__}.output is a field of its own, and output= says which of several "
            "outputs are the logits: set config.model.output of what configuration gives"
        )
    if classes is None:
        raise UserError(
            f"{module.__name__} has no field classes, how many the head tells apart, which the "
            f"images decide: give it one (it may be called {', '.join(nets.CLASSES[1:])} as well)"
        )
    own["grid"] = nets.GRID
    own["narrowed"] = Field(
        "", "the widths that pruning left, where fewer", Text("as prune has it")
    )
    return own


def _check_recipe(recipe: Mapping[str, Any], frozen: tuple[str, ...]) -> None:
    """UserError for what is no field of the configuration or out of its bounds, or told twice."""
    checked("frozen", frozen, config.FIELDS["train.frozen"].bounds)  # a path alone is no tuple
    if frozen and "train.frozen" in recipe:
        raise UserError("recipe: train.frozen is told twice: leave it or frozen= out")
    for path, value in recipe.items():
        if path not in config.FIELDS:
            raise UserError(f"recipe: config.{path} is no field")
        checked(f"config.{path}", value, config.FIELDS[path].bounds)


def _needed(module: Any) -> list[str]:
    """What a class's call needs beside images and what tells it whether it learns."""
    after_images = [*inspect.signature(module.__call__).parameters.values()][2:]
    return [
        each.name
        for each in after_images
        if each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        and each.name not in _MODES
        and not (each.name == nets.RNGS and _is_nnx(module))
    ]


def _values(module: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each field of a class; UserError for one without, or given and not there."""
    values: dict[str, Any] = {}
    defaults = _made_with(module) if _is_nnx(module) else _fields(module)
    annotations = _annotations(module)
    for name, default in defaults.items():
        if name in nets.SUPPLIED or (name in _MODES and not _is_nnx(module)):
            continue
        if name in given:
            values[name] = given[name]
        elif default is not dataclasses.MISSING:
            values[name] = default
        elif name == nets.classes_field(defaults):
            values[name] = 5
        else:
            raise UserError(f"{module.__name__}.{name} has no value: give {name}=")
        if isinstance(default, float) or "float" in annotations.get(name, ""):
            values[name] = _floats(values[name])
    for name in [*(given.keys() - values.keys()), *(values.keys() & set(_TAKEN))]:
        raise UserError(f"{module.__name__} cannot have {name}= as a field of a configuration")
    return values


def _fields(module: Any) -> dict[str, Any]:
    """The fields of a Linen class with their defaults; MISSING where there is none."""
    return {
        field.name: field.default_factory()
        if field.default_factory is not dataclasses.MISSING
        else field.default
        for field in dataclasses.fields(module)
        if field.name not in _FLAX
    }


def _made_with(module: Any) -> dict[str, Any]:
    """What an NNX class is made with beside rngs, likewise; UserError where it takes no rngs."""
    _, *taken = inspect.signature(module.__init__).parameters.values()
    if "rngs" not in [each.name for each in taken]:
        raise UserError(f"{module.__name__} is made without rngs=, which it has to draw from")
    return {
        each.name: dataclasses.MISSING if each.default is each.empty else each.default
        for each in taken
        if each.name != "rngs" and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }


def _annotations(module: Any) -> dict[str, str]:
    """What a class says of the kinds of its fields, as text."""
    if _is_nnx(module):
        taken = inspect.signature(module.__init__).parameters
        told = {each.name: each.annotation for each in taken.values()}
    else:
        told = {field.name: field.type for field in dataclasses.fields(module)}
    return {
        name: kind.__name__ if isinstance(kind, type) else str(kind) for name, kind in told.items()
    }


def _floats(value: Any) -> Any:
    """The value with any number for a whole one: `rate: float = 0` may be 0.5 as well."""
    if isinstance(value, list | tuple):
        return tuple(map(_floats, value))
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_nnx(module: type) -> bool:
    from rice_jax.graph.fronts import is_nnx  # loads JAX

    return is_nnx(module)


def _field(name: str, value: Any) -> Field:
    value = _tuples(value)
    return Field(value, f"the net's {name}", _bounds(name, value))


def _bounds(name: str, value: Any) -> Bounds:
    """What a field may be whose value is such a one."""
    if isinstance(value, bool):
        return Switch()
    if isinstance(value, int):
        return Whole(1, 100_000) if name == "classes" else Whole(-_NUMBER, _NUMBER)
    if isinstance(value, float):
        return Real(-1e30, 1e30)
    if isinstance(value, str):
        return Text("a word")
    if isinstance(value, tuple):
        if any(isinstance(each, float) for each in value):
            value = _floats(value)
        kinds = [_bounds(name, each) for each in value] or [Whole(-_NUMBER, _NUMBER)]
        if all(type(kind) is type(kinds[0]) for kind in kinds):
            return Several(kinds[0])
    raise UserError(
        f"field {name}={value!r}: a configuration holds numbers, words, switches, or tuples of "
        "values of one kind"
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value

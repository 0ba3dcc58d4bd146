"""A net as ONNX, by jax2onnx.

jax2onnx swaps Flax's layers for its own while it traces, and knows neither custom derivatives nor
operations that differ by platform. So it is not given the module but the module's computation as
a flat list of XLA's operations (`rice_jax.graph.trace`), played back one by one.
"""

import bisect
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from rice_jax.errors import UserError, reason
from rice_jax.export import any_size
from rice_jax.export.lacking import lacking, named
from rice_jax.export.onnx_operations import stand_in
from rice_jax.export.runtimes import onnx_session
from rice_jax.export.subject import Subject, subject
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation, Trace


@contextlib.contextmanager
def _cumsum_kept() -> Iterator[None]:
    """jax2onnx leaves a cumsum of its own in jax.numpy, which takes the axis by its name alone."""
    kept = jnp.cumsum
    try:
        yield
    finally:
        jnp.cumsum = kept


@functools.cache
def _import_plugins() -> None:
    from jax2onnx.plugins import plugin_system

    for folder in ("jax", "flax"):
        root = Path(plugin_system.__file__).parent / folder
        plugin_system._import_tree(root, f"jax2onnx.plugins.{folder}")


def _to_onnx(function: Callable[..., Any], arguments: Sequence[Any], **options: Any) -> Any:
    """What jax2onnx makes of a function by its plugins of JAX and Flax: it meets no others here.

    It would import all, those of Equinox and its examples too, which make nets and run them as
    they are imported: ten seconds instead of one. Who calls it after us has them all.
    """
    import jax2onnx
    from jax2onnx.plugins import plugin_system

    _import_plugins()
    kept = plugin_system._already_imported_plugins
    plugin_system._already_imported_plugins = True
    try:
        return jax2onnx.to_onnx(function, list(arguments), **options)
    finally:
        plugin_system._already_imported_plugins = kept


@takes_variables
@_cumsum_kept()
def float32_onnx(
    module: Any,
    variables: Any,
    input_shape: InputShape | int,
    *,
    output: Output = None,
    **kwargs: Any,
) -> bytes:
    """As `to_onnx` where there are no images to calibrate on."""
    for name in ("jax2onnx", "onnx_ir"):  # they warn of layers and types that no net here has
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import jax2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs packages that are not installed ({error}): pip install 'rice_jax[onnx]'"
        ) from error
    net = subject(module, variables, input_shape, output, **kwargs)
    traced = net.traced_for_any(any_size.images_of(net))
    wanted = [traced.the_logits()]

    def logits(images: jax.Array) -> jax.Array:
        return _for_batch(traced, images).evaluate(net.variables, images, wanted)[0]

    try:
        model = _to_onnx(
            logits,
            [("batch", *net.image)],
            model_name=net.net.name,
            input_names=["images"],
            output_names=["logits"],
        )
        _drop_null_biases(model.graph)
        content = bytes(model.SerializeToString())
        _run_once(content)
    except UserError:
        raise
    except Exception as error:  # each converter of an operation raises its own kinds
        raise _refusal(traced, net, error) from error
    return content


def _converts(function: Callable[..., Any], arguments: Sequence[Any]) -> bool:
    """Whether an operation alone, of arrays of known sizes, can be converted, and run."""
    try:
        _run_once(_to_onnx(function, arguments).SerializeToString())
    except Exception:
        return False
    return True


def _run_once(content: bytes) -> None:
    """Whatever onnxruntime raises where it cannot compute the model: tried on zeros."""
    session = onnx_session(content)
    kinds = {"tensor(float)": np.float32, "tensor(bool)": np.bool_}
    zeros = {
        each.name: np.zeros(
            [size if isinstance(size, int) else 1 for size in each.shape],
            kinds.get(each.type) or each.type.removeprefix("tensor(").removesuffix(")"),
        )
        for each in session.get_inputs()
    }
    session.run(None, zeros)


def _refusal(traced: Trace, net: Subject, error: Exception) -> UserError:
    """What a net without an ONNX form is told."""
    one = jnp.zeros((1, *net.image))
    found, has = lacking(_for_batch(net.alone, one), _converts), "no ONNX form"
    if found is None:
        found = _first_lacking(traced, net)
        has = "an ONNX form for one image, but none for a batch of any size"
    if found is None:
        return UserError(f"the net has no ONNX form: {reason(error)}")
    return UserError(f"{named(found)} has {has}; a .stablehlo takes more")


def _first_lacking(traced: Trace, net: Subject) -> Equation | None:
    """The first operation that cannot be converted for a batch of unknown size; None: each can."""

    def fails(number: int) -> bool:
        def first(images: jax.Array) -> list[jax.Array]:
            for_batch = _for_batch(traced, images)
            some = dataclasses.replace(for_batch, equations=for_batch.equations[: number + 1])
            return some.evaluate(net.variables, images, some.equations[-1].outputs)

        try:
            _run_once(_to_onnx(first, [("batch", *net.image)]).SerializeToString())
        except Exception:
            return True
        return False

    numbers = range(len(traced.equations))
    found = bisect.bisect_left(numbers, True, key=fails)
    if found == len(numbers):
        return None
    # Of JAX 0.10 a loop over the images may be converted wrongly, which shows in what reads it.
    loops = (each for each in traced.equations[: found + 1] if _is_over_images(each))
    return next(loops, traced.equations[found])


def _is_over_images(equation: Equation) -> bool:
    return export.is_symbolic_dim(equation.params.get("length", 0))


def with_note(content: bytes, name: str, text: str) -> bytes:
    """The model with `text` as its metadata `name`."""
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, {name: text})
    return model.SerializeToString()


def operators(content: bytes) -> list[str]:
    """The kinds of operators that the model needs, as ONNX calls them: 'Conv', by name."""
    import onnx

    return sorted({node.op_type for node in onnx.load_from_string(content).graph.node})


def _drop_null_biases(graph: Any) -> None:
    """Make a MatMul of each Gemm that adds a lone 0, as which jax2onnx writes a matrix product.

    Of a MatMul and the bias after it onnxruntime makes one Gemm; its quantiser refuses the 0.
    """
    from onnx import numpy_helper

    nulls = {
        each.name: each
        for each in graph.initializer
        if not each.dims and not numpy_helper.to_array(each)
    }
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[2:] and node.input[2] in nulls:
            node.op_type = "MatMul"
            del node.input[2], node.attribute[:]
    read = {name for node in graph.node for name in node.input}
    for name in nulls.keys() - read:
        graph.initializer.remove(nulls[name])


def _for_batch(traced: Trace, images: jax.Array) -> Trace:
    """The computation for the converter's own unknown batch size in place of ours."""
    origins = Origins(traced)
    equations = [
        dataclasses.replace(
            equation,
            params=_with_batch(equation.params, images.shape[0]),
            primitive=stand_in(equation, origins),
        )
        for equation in traced.equations
    ]
    return dataclasses.replace(traced, equations=equations)


def _with_batch(value: Any, batch: Any) -> Any:
    """What a parameter is for that batch size; '8*batch' of ours is eight times it."""
    if type(value) is dict:
        return {key: _with_batch(item, batch) for key, item in value.items()}
    if type(value) is tuple:  # not the named ones, such as dimension numbers
        return tuple(_with_batch(item, batch) for item in value)
    if not export.is_symbolic_dim(value):
        return value
    told = str(value).replace(any_size.BATCH, str(batch))
    (size,) = export.symbolic_shape(told, scope=batch.scope)
    return size

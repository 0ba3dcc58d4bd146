"""A net as a LiteRT file (.tflite), by litert-converter and without TensorFlow.

The converter reads StableHLO as `jax.export` writes it. The net is traced as it is written
(`ops.plain`): what this package makes of pools on CPU would not become LiteRT's MAX_POOL_2D again.
The trace is played back operation by operation, as for ONNX.
"""

import functools
from collections.abc import Callable, Container, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from rice_jax import ops
from rice_jax.errors import UserError
from rice_jax.export import halves, spreading
from rice_jax.export.lacking import lacking, named
from rice_jax.export.native import stderr_kept_back
from rice_jax.export.subject import subject
from rice_jax.graph.arrays import InputShape
from rice_jax.graph.call import Output
from rice_jax.graph.fronts import takes_variables
from rice_jax.graph.origins import Origins
from rice_jax.graph.trace import Equation, Trace

SIGNATURE = "serving_default"
"""The name under which LiteRT finds the net; its input is 'images', its output 'logits'."""
_OF_SIZES = ("rem", "cbrt")
"""Odd functions that LiteRT has wrong of negative numbers: remainders of another sign, and NaN."""
ROOT, DENSE = "net", "dot_general"
"""What names of tensors have for operations of no layer, and for dense layers in one of them."""


@takes_variables
def float32_tflite(
    module: Any,
    variables: Any,
    input_shape: InputShape | int,
    *,
    batch: int = 1,
    to_be_quantized: bool = False,
    output: Output = None,
    **kwargs: Any,
) -> bytes:
    """As `to_tflite` where there are no images to calibrate on.

    Args:
        to_be_quantized: whether int8 is made of it: dense layers are then convolutions of one
            pixel (CONV_2D), for of these all runtimes have the same int8. LiteRT's and
            tflite-micro's FULLY_CONNECTED differ in the last bit.
    """
    with ops.plain():
        net = subject(module, variables, input_shape, output, **kwargs)
        traced = net.alone if batch == 1 else net.traced(batch)
    images = jax.ShapeDtypeStruct((batch, *net.image), jnp.float32)
    wanted = [traced.the_logits()]
    origins = Origins(traced)
    dense = {each for each in traced.equations if to_be_quantized and _is_dense(each, origins)}
    play = functools.partial(_played, dense=dense, kernels=_making_kernels(traced, origins))

    def logits(images: jax.Array) -> jax.Array:
        return traced.evaluate(net.variables, images, wanted, run=play)[0]

    try:
        content = _converted(logits, [images], ["images"], ["logits"])
        _run_once(content)
    except (ValueError, RuntimeError) as error:
        if found := lacking(traced, _converts, play):
            raise UserError(
                f"{named(found)} has no LiteRT form; a .stablehlo takes more"
            ) from error
        said = next(iter(str(error).split("\n")), "") or "litert-converter does not say why"
        raise UserError(f"the net has no LiteRT form: {said}") from error
    return content


def _played(
    equation: Equation,
    *operands: Any,
    dense: Container[Equation],
    kernels: Container[Equation],
) -> list[Any]:
    """What `Equation.apply` gives, under its layer's name, which LiteRT's tensors then have.

    Those of `dense` become convolutions of one pixel, and the maximum over whole maps a max pool:
    of that the quantiser has an int8. Those of `kernels` are computed here: of a kernel that the
    file computes LiteRT has no int8 that is right.
    """
    if equation in kernels:
        with jax.ensure_compile_time_eval():
            return equation.apply(*operands)
    shapes, params = [each.shape for each in equation.inputs], equation.params
    with jax.named_scope(equation.layer or ROOT):
        if (
            equation.name == "reduce_max"
            and len(shapes[0]) == 4
            and tuple(params["axes"]) == (1, 2)
        ):
            (maps,) = operands
            return [nn.max_pool(maps, shapes[0][1:3])[:, 0, 0]]
        if equation in dense:
            return [_of_one_pixel(*operands)]
        if spreading.is_transposed(equation):
            return [spreading.ZerosBetween(equation).bind(*operands, **params)]
        if equation.name in _OF_SIZES:
            (size,) = equation.apply(*map(jnp.abs, operands))
            return [jnp.sign(operands[0]) * size]
        if halves.go_away(equation):
            return [halves.Away().bind(*operands)]
        if equation.name == "top_k":  # of its values alone the converter makes a sort
            return jax.lax.optimization_barrier(equation.apply(*operands))
        return equation.apply(*operands)


def _making_kernels(traced: Trace, origins: Origins) -> set[Equation]:
    """The operations that make kernels of weights and numbers, whatever the image is."""
    kernels = [
        value
        for equation in traced.equations
        if equation.name in ("conv_general_dilated", "dot_general")
        for value in equation.inputs
        if origins.is_weight(value) or origins.is_constant(value)
    ]
    return set(traced.needed(kernels))


def _is_dense(equation: Equation, origins: Origins) -> bool:
    """Whether it is a product of one row and a matrix, or of the pixels of maps and weights."""
    if equation.name != "dot_general":
        return False
    rows, matrix = equation.inputs
    last = len(rows.shape) - 1
    contracted, batched = equation.params["dimension_numbers"]
    if len(matrix.shape) != 2 or any(batched) or [*map(tuple, contracted)] != [(last,), (0,)]:
        return False
    return rows.shape[0] == 1 if last == 1 else last > 1 and origins.is_weight(matrix)


def _of_one_pixel(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    """rows (..., K) times matrix (K, N) as a convolution of windows of one pixel, named DENSE."""
    pixels = rows if rows.ndim == 4 else rows.reshape(len(rows), 1, -1, rows.shape[-1])
    with jax.named_scope(DENSE):
        made = jax.lax.conv_general_dilated(
            pixels,
            matrix[None, None],
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return made.reshape(*rows.shape[:-1], -1)


def interpreter(
    content: bytes, *, reference: bool = False, kept: bool = False, threads: int = 1
) -> Any:
    """LiteRT's interpreter of a .tflite, ready to be called.

    Args:
        content: the file.
        reference: whether LiteRT's plain kernels compute, those that tflite-micro has, instead of
            the fast ones (XNNPACK), which round differently in the last bit.
        kept: whether each tensor can be read after a run, not the output alone; the fast kernels
            keep none.
        threads: that the fast kernels use.

    Raises:
        UserError: the packages of the extra 'litert' are not installed.
        ValueError, RuntimeError: LiteRT cannot run it.
    """
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError as error:
        raise missing(error) from error
    kind = litert.OpResolverType
    kernels = kind.BUILTIN_WITHOUT_DEFAULT_DELEGATES if kept else kind.AUTO
    with stderr_kept_back():
        made = litert.Interpreter(
            model_content=content,
            experimental_op_resolver_type=kind.BUILTIN_REF if reference else kernels,
            experimental_preserve_all_tensors=kept,
            num_threads=threads,
        )
        made.allocate_tensors()
    return made


def missing(error: ImportError) -> UserError:
    """What to say where a package of the extra is not installed."""
    return UserError(
        f".tflite needs packages that are not installed ({error}): pip install 'rice_jax[litert]'"
    )


def _converted(
    function: Callable[..., Any],
    arguments: Sequence[jax.ShapeDtypeStruct],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> bytes:
    try:
        with stderr_kept_back():  # it says which of its kernels are on
            from litert_converter import converter_api_ext as converter
            from litert_converter.mlir import ir, passmanager
    except ImportError as error:
        raise missing(error) from error
    text = export.export(jax.jit(function), platforms=("cpu",))(*arguments).mlir_module()
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context, stderr_kept_back():
        net = ir.Module.parse(text)
        converter.set_signature(net.operation, SIGNATURE, inputs, outputs)
        converter.run_convert_to_tfl_passes(
            net, passmanager.PassManager(), converter.ConvertToTFLConfig()
        )
        return bytes(converter.export_flatbuffer_to_bytes(net.operation))


def _run_once(content: bytes) -> None:
    """Whatever LiteRT raises where it cannot compute the file: tried on zeros."""
    net = interpreter(content)
    with stderr_kept_back():
        for each in net.get_input_details():
            net.set_tensor(each["index"], np.zeros(each["shape"], each["dtype"]))
        net.invoke()


def _converts(function: Callable[..., Any], arguments: Sequence[jax.ShapeDtypeStruct]) -> bool:
    """Whether an operation alone can be converted, and run."""
    outputs = [f"y{index}" for index, _ in enumerate(jax.eval_shape(function, *arguments))]
    inputs = [f"x{index}" for index, _ in enumerate(arguments)]
    try:
        _run_once(_converted(function, arguments, inputs, outputs))
    except (ValueError, RuntimeError):
        return False
    return True

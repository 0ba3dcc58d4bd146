"""A trained net as a file that runs without this package: StableHLO or ONNX."""

from rice_jax.export.onnx import to_onnx
from rice_jax.export.stablehlo import to_stablehlo

__all__ = ["to_onnx", "to_stablehlo"]

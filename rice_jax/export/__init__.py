"""A trained net as a file that runs without this package: StableHLO, ONNX or LiteRT."""

from rice_jax.export.conversion import to_onnx, to_tflite
from rice_jax.export.stablehlo import to_stablehlo

__all__ = ["to_onnx", "to_stablehlo", "to_tflite"]

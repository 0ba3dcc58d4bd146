"""What a net's filters do: their maps, how often they are zero, which can never be anything else.

For any net in Flax, or a function; it is traced, never changed.
"""

from rice_jax.inspection.census import Census, LayerCensus, census, censuses
from rice_jax.inspection.features import feature_maps, seer
from rice_jax.inspection.findings import to_json
from rice_jax.inspection.interval import Interval, certain, widened
from rice_jax.inspection.proof import Proof, prove, proven_dead
from rice_jax.inspection.ranges import map_bounds, value_bounds
from rice_jax.inspection.saliency import saliency

__all__ = [
    "Census",
    "Interval",
    "LayerCensus",
    "Proof",
    "census",
    "censuses",
    "certain",
    "feature_maps",
    "map_bounds",
    "prove",
    "proven_dead",
    "saliency",
    "seer",
    "to_json",
    "value_bounds",
    "widened",
]

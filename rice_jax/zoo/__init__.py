"""What comes with the package: trained nets with their cards, and a sample of photographs."""

from pathlib import Path

from rice_jax.zoo.catalogue import PREFIX, Entry, card, load, names, save
from rice_jax.zoo.table import rows

SAMPLE = Path(__file__).parent / "sample" / "rice_sample.zip"
"""1,000 photographs of the Kaggle data set; no net of the zoo was trained on any of them."""

__all__ = ["PREFIX", "SAMPLE", "Entry", "card", "load", "names", "rows", "save"]

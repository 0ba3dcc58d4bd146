"""Figures of one run, drawn from plain data: arrays and what the stages' JSON holds."""

from rice_jax.report.figures.benchmark import speeds
from rice_jax.report.figures.growth import growth
from rice_jax.report.figures.layers import dead_filters, flops
from rice_jax.report.figures.lightening import SEARCHED, searched
from rice_jax.report.figures.names import (
    feature_maps_file,
    feature_maps_files,
    side_by_side_file,
)
from rice_jax.report.figures.pictures import classes, feature_maps, saliency
from rice_jax.report.figures.pruning import budgets, filters_left, maps_side_by_side
from rice_jax.report.figures.roofline import roofline
from rice_jax.report.figures.training import confusion_matrix, curves
from rice_jax.report.style import png, svg

__all__ = [
    "SEARCHED",
    "budgets",
    "classes",
    "confusion_matrix",
    "curves",
    "dead_filters",
    "feature_maps",
    "feature_maps_file",
    "feature_maps_files",
    "filters_left",
    "flops",
    "growth",
    "maps_side_by_side",
    "png",
    "roofline",
    "saliency",
    "searched",
    "side_by_side_file",
    "speeds",
    "svg",
]

"""The viewer of feature maps: what the page's script is given."""

from typing import Any

from markupsafe import Markup

from rice_jax.records import FeatureMapsFile, LayerCosts, LayerFilters, LayerShown, plain
from rice_jax.report import fates
from rice_jax.report.gallery import MOST_MAPS
from rice_jax.report.html.rendering import embedded, render
from rice_jax.report.record import Record


def viewer(gallery: FeatureMapsFile, record: Record) -> Markup:
    """The viewer of a run's feature_maps.json."""
    side = max((max(layer.drawn) for layer in gallery.layers), default=0)
    cut = any(layer.filters > len(layer.shown) for layer in gallery.layers)
    content = embedded(told(gallery, record))
    return render("viewer.html", gallery=content, side=side, most=MOST_MAPS if cut else 0)


def told(gallery: FeatureMapsFile, record: Record) -> dict[str, Any]:
    """What the script draws: the gallery, and what census and profile say of its filters."""
    found = (
        {layer.path: layer for layer in record.dead_filters.layers} if record.dead_filters else {}
    )
    costs = {layer.path: layer for layer in record.profile.layers} if record.profile else {}
    layers = [
        plain(layer)
        | _census(layer, found.get(layer.path.partition("@")[0]))
        | _cost(layer, costs.get(layer.path.partition("@")[0].partition("#")[0]))
        for layer in gallery.layers
    ]
    return plain(gallery) | {"layers": layers, "words": dict(fates.WORDS)}


def _census(layer: LayerShown, found: LayerFilters | None) -> dict[str, Any]:
    if found is None or found.filters != layer.filters:
        return {}  # of another training, or never inspected
    zeros, each = found.zero_fraction, fates.fates(found)
    return {
        "zeros": [zeros[index] if index < len(zeros) else None for index in layer.shown],
        "fates": [each[index] for index in layer.shown],
    }


def _cost(layer: LayerShown, cost: LayerCosts | None) -> dict[str, Any]:
    """Of one filter: an equal share of its layer's."""
    if cost is None or cost.filters != layer.filters:
        return {}
    return {"flops": cost.study / layer.filters, "params": cost.params / layer.filters}

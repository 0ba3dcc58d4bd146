"""The viewer of feature maps: what the page's script is given."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from rice_jax.report import fates
from rice_jax.report.gallery import MOST_MAPS
from rice_jax.report.html.rendering import embedded, render
from rice_jax.report.record import Record


def viewer(gallery: Mapping[str, Any], record: Record) -> Markup:
    """The viewer of a run's feature_maps.json."""
    layers = told(gallery["layers"], record)
    side = max((max(layer["drawn"]) for layer in layers), default=0)
    cut = any(layer["filters"] > len(layer["shown"]) for layer in layers)
    content = embedded({**gallery, "layers": layers, "words": fates.WORDS})
    return render("viewer.html", gallery=content, side=side, most=MOST_MAPS if cut else 0)


def told(layers: list[dict[str, Any]], record: Record) -> list[dict[str, Any]]:
    """The gallery's layers with what census and profile say of the filters that are shown."""
    found = {layer["path"]: layer for layer in (record.dead_filters or {}).get("layers", ())}
    costs = {layer["path"]: layer for layer in (record.profile or {}).get("layers", ())}
    return [
        layer
        | _census(layer, found.get(layer["path"].partition("@")[0]))
        | _cost(layer, costs.get(layer["path"].partition("@")[0].partition("#")[0]))
        for layer in layers
    ]


def _census(layer: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is None or found["filters"] != layer["filters"]:
        return {}  # of another training, or never inspected
    zeros, each = found.get("zero_fraction") or [], fates.fates(found)
    return {
        "zeros": [zeros[index] if index < len(zeros) else None for index in layer["shown"]],
        "fates": [each[index] for index in layer["shown"]],
    }


def _cost(layer: Mapping[str, Any], cost: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of one filter: an equal share of its layer's."""
    if cost is None or cost["filters"] != layer["filters"]:
        return {}
    return {
        "flops": (cost["flops"]["study"] or 0) / layer["filters"],
        "params": (cost["params"] or 0) / layer["filters"],
    }

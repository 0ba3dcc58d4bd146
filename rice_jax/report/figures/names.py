"""What the pictures of a net's feature maps are called."""

import re
from collections import Counter
from collections.abc import Collection, Iterable


def feature_maps_file(path: str) -> str:
    """Name, in a run's folder, of the picture of a layer's maps: feature_maps/LAYER.png.

    '/' and whatever a file name or a link had better not hold become '_'; '#', which counts the
    kernels of a layer, becomes '-'; the root module is 'root'.
    """
    return f"feature_maps/{_plain(path)}.png"


def side_by_side_file(path: str) -> str:
    """Name of a layer's `maps_side_by_side` in the run's folder, likewise; '/' becomes '.'."""
    return f"pruned_maps/{_plain(path.replace('/', '.'))}.png"


def _plain(path: str) -> str:
    return re.sub(r"[^\w.@-]", "_", path.replace("#", "-")) or "root"


def feature_maps_files(paths: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """By path the name of its picture, as `feature_maps_file` has it; no two share one.

    Args:
        paths: in the net's order: of those that would share a name, as 'a/b' and 'a_b', the later
            ones get a number: a_b~2.png.
        taken: names without their ending that are another picture's.
    """
    met = Counter(f"feature_maps/{name}.png" for name in taken)
    found = {}
    for path in paths:
        file = feature_maps_file(path)
        same = file.casefold()  # as some systems take them
        met[same] += 1
        found[path] = file if met[same] == 1 else f"{file.removesuffix('.png')}~{met[same]}.png"
    return found

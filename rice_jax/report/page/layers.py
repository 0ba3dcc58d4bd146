"""The net's inside: where the compute goes, which filters are dead, what the maps look like."""

from collections.abc import Sequence

from rice_jax.records import LayerCosts, LayerFilters, ProfileFile, Timed
from rice_jax.report import markdown, numbers
from rice_jax.report.figures import feature_maps_files
from rice_jax.report.page.blocks import Section, Shown, picture
from rice_jax.report.page.commands import stage_command
from rice_jax.report.record import Record
from rice_jax.run import Run

_COSTLIEST = 8
_INLINE_MAPS = 8
_DEADEST = 12
_MOST_ALIKE = 3


def compute(run: Run, record: Record) -> Section:
    """FLOPs by layer, the costliest in a table, what is not counted, bounds, memory and time."""
    profile = record.profile
    if profile is None:
        command = markdown.code(stage_command(run, record, "profile"))
        return ["## Where the compute goes", f"Not counted yet: {command} does it."]
    total = profile.totals.flops.study or 1
    layers = sorted(profile.layers, key=lambda layer: -layer.study)
    costliest = layers[:_COSTLIEST]
    parts: Section = ["## Where the compute goes"]
    if costliest and costliest[0].study:
        counted = " that is counted" if profile.uncounted else ""
        parts.append(
            f"{_most_work(layers, total)} of the work{counted} "
            "(FLOPs of one image in the study's convention; one multiply-add is two)."
        )
    image = markdown.image("FLOPs by layer", "flops.png")
    table = markdown.table(
        ("layer", "type", "output", "parameters", "FLOPs", "share", "bytes", "bound by"),
        [_layer_row(layer, total) for layer in costliest],
        left=3,
    )
    parts += [
        Shown("layers", f"{image}\n\n{table}"),
        _uncounted(profile),
        *_bounds(profile),
        _costs_beside(profile),
        _time(profile),
    ]
    return [part for part in parts if part]


def _most_work(layers: Sequence[LayerCosts], total: float) -> str:
    """'`conv2` alone does 40.0 %'; of layers, the costliest first, that do as much, each."""
    share = numbers.percent(layers[0].study / total, 1)
    # Such as are told to do as much: 34.14 % beside 34.11 % would be no "alone".
    alike = [layer for layer in layers if numbers.percent(layer.study / total, 1) == share]
    names = [markdown.code(layer.path or "the net") for layer in alike[:_MOST_ALIKE]]
    if len(alike) == 1:
        return f"{names[0]} alone does {share}"
    if more := len(alike) - len(names):
        names.append(f"{more} more")
    return f"{', '.join(names[:-1])} and {names[-1]} each do {share}"


def _layer_row(layer: LayerCosts, total: float) -> tuple[str, ...]:
    return (
        markdown.code(layer.path or "the net"),
        markdown.escape(layer.type),
        layer.size or numbers.MISSING,
        numbers.count(layer.params),
        numbers.at_least(numbers.count(layer.flops.study), layer.complete),
        numbers.percent(layer.study / total, 1),
        numbers.short(layer.bytes.total, 3) if layer.bytes else numbers.MISSING,
        layer.bound or numbers.MISSING,
    )


def _uncounted(profile: ProfileFile) -> str:
    """Operations without a rule: the totals are too low by them."""
    names = sorted({f"{row.operation} in {row.layer or 'the net'}" for row in profile.uncounted})
    if not names:
        return ""
    listed = ", ".join(markdown.code(name) for name in names)
    return f"**Not counted**, so that the totals (≥) are too low by it: {listed}."


def _bounds(profile: ProfileFile) -> Section:
    """What bounds the layers on the configured device, as words and as a picture."""
    device, bounds = profile.roofline, [layer.bound for layer in profile.layers if layer.bound]
    if device is None or not bounds:
        return []
    text = (
        f"On a device of {numbers.quantity(device.flops_per_second, 'FLOP/s', 3)} and "
        f"{numbers.quantity(device.bytes_per_second, 'B/s', 3)} {_bound_by(bounds)}, where each "
        "reads its weights and inputs once and writes its outputs once; one image takes at least "
        f"{numbers.seconds(device.seconds)} there."
    )
    return [text, picture("What bounds each layer", "roofline.png")]


def _bound_by(bounds: Sequence[str]) -> str:
    """How many layers memory bounds, and how many arithmetic."""
    memory = bounds.count("memory")
    if memory in (0, len(bounds)):
        return f"{'memory' if memory else 'arithmetic'} bounds all layers"
    others = "the other" if len(bounds) - memory == 1 else "the others"
    return f"memory bounds {memory} of {len(bounds)} layers and arithmetic {others}"


def _costs_beside(profile: ProfileFile) -> str:
    """Memory at the peak, and what a training step takes."""
    totals, memory = profile.totals, profile.totals.memory
    if memory is None:
        return ""
    where = f", in {markdown.code(memory.at)}" if memory.at else ""
    training = numbers.quantity(totals.training_flops, "FLOPs")
    return (
        f"Inference holds {numbers.quantity(memory.peak, 'B', 3)} at its peak: "
        f"{numbers.quantity(memory.weights, 'B', 3)} of weights and "
        f"{numbers.quantity(memory.activations, 'B', 3)} of activations{where}. A forward and a "
        f"backward pass take {numbers.at_least(training, totals.complete)} (`formula`)."
    )


def _time(profile: ProfileFile) -> str:
    time = profile.time
    if time is None:
        return ""
    measured, batch = time.measured, time.measured.throughput
    rate = numbers.quantity(time.device_flops_per_second, "FLOP/s", 3)
    way = ""
    if measured.from_host is not None:  # an older version did not measure it
        way = f", {numbers.seconds(measured.from_host)} from NumPy's memory and back"
    return (
        f"Counted by FLOPs alone (`study`), at {rate}, one image takes "
        f"{numbers.seconds(time.theoretical_seconds.get('study'))}. Measured on "
        f"{markdown.escape(str(measured.device))}: {numbers.seconds(measured.median)} for one "
        f"image (middle 80 %: {numbers.seconds(measured.p10)} to "
        f"{numbers.seconds(measured.p90)}){way}, and "
        f"{numbers.short(batch.images_per_second, 3)} images a second in "
        f"batches of {batch.batch_size}.{_elsewhere(time)}"
    )


def _elsewhere(time: Timed) -> str:
    """One image exported to other runtimes, beside the same way in JAX."""
    ours = time.measured.from_host
    told = [
        f"{markdown.escape(runtime)} {numbers.seconds(seconds.median)}"
        + (f" ({ours / seconds.median:.2f} times as fast)" if ours else "")
        for runtime, seconds in (time.runtimes or {}).items()
    ]
    if not told:
        return ""
    return f" Exported, with the same way there and back: {', '.join(told)}."


def dead_filters(run: Run, record: Record) -> Section:
    """Filters that are zero on every image, by layer."""
    if record.dead_filters is None:
        command = markdown.code(stage_command(run, record, "inspect"))
        return ["## Dead filters", f"Not inspected yet: {command} does it."]
    layers = record.dead_filters.layers
    clean, augmented, proven = (
        (sum(map(len, each)) for each in zip(*map(_dead, layers), strict=True))
        if layers
        else (0, 0, 0)
    )
    filters, unseen = sum(layer.filters for layer in layers), _unseen(record.dead_filters.unseen)
    if not filters:
        return ["## Dead filters", *(unseen or ["The net has no convolution, and so no filters."])]
    images = record.dead_filters.images
    one = images == 1
    clean_images = "the one clean image" if one else f"all {images:,} clean images"
    return [
        "## Dead filters",
        f"Of {numbers.counted(filters, 'filter')} {_are(clean)} zero on every pixel of "
        f"{clean_images} and {numbers.count(augmented)} on the augmented "
        f"{'one' if one else 'ones'}; {_are(proven)} proven to be zero for every image there can "
        "be. Removing a filter changes no answer on images on which it is zero, removing a proven "
        "one changes none at all.",
        *unseen,
        Shown("dead_filters", "\n\n".join(_deadest(layers))),
    ]


def _are(number: int) -> str:
    return f"{numbers.count(number)} {'is' if number == 1 else 'are'}"


def _unseen(paths: Sequence[str]) -> list[str]:
    """The convolutions that these figures lack."""
    if not paths:
        return []
    listed = ", ".join(markdown.code(path or "the net") for path in paths)
    return [f"**Not looked at**, since they run inside a loop: the filters of {listed}."]


def _dead(layer: LayerFilters) -> tuple[list[int], list[int], list[int]]:
    """Filters that are dead on clean images, on augmented ones, and proven dead."""
    return layer.dead_clean, layer.dead_augmented, layer.proven_dead


def _deadest(layers: Sequence[LayerFilters]) -> list[str]:
    """The picture, and the layers with most dead filters in a table."""
    parts = [markdown.image("Dead filters by layer", "dead_filters.png")]
    affected = [layer for layer in layers if any(_dead(layer))]
    deadest = sorted(affected, key=lambda layer: -sum(map(len, _dead(layer))))
    shown = [layer for layer in affected if layer in deadest[:_DEADEST]]
    rows = [
        (
            markdown.code(layer.path or "the net"),
            numbers.count(layer.filters),
            *(str(len(dead)) for dead in _dead(layer)),
            ranges(layer.dead_clean),
        )
        for layer in shown
    ]
    if rows:
        header = ("layer", "filters", "clean", "augmented", "proven", "which, on clean images")
        parts.append(markdown.table(header, rows))
    if left_out := len(affected) - len(shown):
        have = "has" if left_out == 1 else "have"
        parts.append(
            f"{numbers.counted(left_out, 'more layer')} {have} as many "
            "or fewer; all are in [dead_filters.json](dead_filters.json)."
        )
    return parts


def ranges(indices: Sequence[int]) -> str:
    """[0, 4, 5, 6] as '0, 4-6'."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(texts) or numbers.MISSING


def feature_maps(run: Run, record: Record) -> Section:
    """The grids of maps: all of a small net, the first, a middle and the last of a large one.

    Those of layers that the net has: another's may lie there, which the folder held before.
    """
    folder = run.path / "feature_maps"
    found = {f"feature_maps/{file.name}" for file in folder.glob("*.png")}
    layers = record.dead_filters.layers if record.dead_filters else []
    files_of = feature_maps_files(layer.path for layer in layers)
    names = {file: path for path, file in files_of.items()}
    titles = {file: path for file, path in names.items() if file in found}
    again = (file for file in sorted(found) if f"{file.rpartition('@')[0]}.png" in names)
    titles |= {file: file.split("/")[1] for file in again}  # a layer that is called twice
    if not titles:
        return []
    files = list(titles)
    few = [files[0], files[len(files) // 2], files[-1]]
    inline = files if len(files) <= _INLINE_MAPS else few
    parts = [markdown.image(f"Feature maps of {titles[file]}", file) for file in inline]
    rest = [file for file in files if file not in inline]
    if rest:
        links = ", ".join(markdown.link(markdown.code(titles[file]), file) for file in rest)
        parts.append(f"The other layers: {links}.")
    return [
        "## Feature maps",
        Shown("feature_maps", "\n\n".join(["What each filter makes of one test image.", *parts])),
    ]

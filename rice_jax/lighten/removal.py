"""What a pruning leaves beside the net: its pictures, and what the terminal shows."""

import jax.numpy as jnp
import numpy as np

from rice_jax import data, inspection
from rice_jax.lighten.remainder import Remainder
from rice_jax.records import PruneFile
from rice_jax.report import figures, numbers
from rice_jax.run import Run


def draw(whole: Remainder, net: Remainder, dataset: data.Dataset, out: Run) -> None:
    """Draw each layer's filters before and after, and its maps of a test image."""
    left = net.left_of(whole)
    model, synthetic = whole.config.model.name, dataset.synthetic
    rows = [
        {"path": path, "before": len(indices), "after": len(left[path])}
        for path, indices in whole.kept.items()
    ]
    title = f"{model}: filters before and after"
    figure = figures.filters_left(rows, title=title, synthetic=synthetic)
    out.write_bytes("filters.png", figures.png(figure))
    record = dataset.splits["test"][0]
    image = data.decode(record["image"], whole.config.data.image_size)
    x = jnp.asarray(image[None], jnp.float32) / 255
    before, after = (inspection.feature_maps(*each.pair, x) for each in (whole, net))
    for path, maps in after.items():
        if path not in net.kept:  # a layer's second call, whose filters are those of the first
            continue
        old = net.origin[path]
        figure = figures.maps_side_by_side(
            old,
            np.asarray(before[old])[0],
            np.asarray(maps)[0],
            net.kept[path],
            f"{model}: {dataset.classes[record['label']]}",
            synthetic=synthetic,
        )
        out.write_bytes(figures.side_by_side_file(old), figures.png(figure))


def tell(account: PruneFile) -> None:
    """Print what a pruning took out, and what that did to the logits."""
    before, after, certificate = account.before, account.after, account.certificate
    assert certificate is not None
    changed = certificate.changed_predictions
    for name, label in (
        ("study", "FLOPs (study)"),
        ("params", "parameters"),
        ("filters", "filters"),
    ):
        left = f" ({numbers.percent(after.of(name) / before.of(name))})" if before.of(name) else ""
        was, now = (
            numbers.at_least(f"{each.of(name):,}", name != "study" or not each.uncounted)
            for each in (before, after)
        )
        print(f"{label}: {was} to {now}{left}")
    if not any(account.removed.values()):
        print("no filter was removed")
    for why in account.kept_whole:
        print(f"left whole: {why}")
    for operation in account.unbounded:
        print(f"nothing is proven behind {operation}")
    for filters in account.unchanging:
        print(f"never changes but stays: {filters}")
    for measure, budget in account.budgets.items():
        print(f"budget of {budget.asked:,} ({measure}): {budget.told}")
    claim = "on every possible image" if certificate.proven else "on these images"
    if certificate.departure:
        claim += f", for {certificate.departure}"
    if account.request.steps > 1:
        claim += f"; between its {account.request.steps} cuts the net trained"
    most = numbers.at_most(certificate.max_abs_logit_difference)
    share = numbers.at_most(certificate.max_relative_logit_difference)
    print(
        f"logits differ by {most} at most ({share} of the largest logit) on "
        f"{numbers.counted(certificate.images, 'image')}, {numbers.counted(changed, 'prediction')} "
        f"{'changes' if changed == 1 else 'change'}; this holds {claim}",
        flush=True,
    )

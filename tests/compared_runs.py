"""Runs to compare, written without training."""

from report_runs import make_run, profile, scored

from rice_jax.report.comparison import compared


def run_of(
    folder, name, accuracy, flops, latency=0.002, params=1000, device="cpu", clean=990, **parts
):
    """A run with these accuracies, augmented and clean, in thousandths, FLOPs and latency."""
    content = parts.pop("profile", None) or profile(flops)
    content["totals"] = content["totals"] | {"params": params}
    content["time"]["measured"] |= {"median": latency, "device": device}
    if latency is None:
        del content["time"]
    evaluation = {"clean": scored(clean), "augmented": scored(accuracy), "path": "test split"}
    return make_run(folder, name, evaluation=evaluation, profile=content, **parts)


def read(*runs) -> list[compared.NetRuns]:
    return compared.read([str(run) for run in runs])

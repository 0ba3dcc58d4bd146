"""A lighter run out of a trained one: what the command does, from folder to folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from rice_jax import config as configuration
from rice_jax import data, identity, lock, records, stages, train
from rice_jax.errors import UserError
from rice_jax.lighten import asked, child, half, removal, smaller
from rice_jax.lighten.remainder import Remainder, layers
from rice_jax.models.statistics import norms
from rice_jax.prune.certificate import certify
from rice_jax.prune.probe import dead_tail, probe
from rice_jax.prune.pruner import Pruned
from rice_jax.prune.tally import totals
from rice_jax.records import CertificateTold, CutTold, HalfPruned, PruneFile, PruneRequest
from rice_jax.run import Run
from rice_jax.train.prepared import Images


def prune_run(
    request: PruneRequest, config: ml_collections.ConfigDict, parent: Run, out: Run
) -> None:
    """Prune the run in `parent`, and train, evaluate, profile and inspect what remains in `out`.

    A run that was pruned already by the same request goes on where it stands.

    Raises:
        UserError: what can't be done as it was asked for, or `out` holds something else.
    """
    asked.require_pruning(request)
    if request.steps < 1 or request.finetune_epochs < 0:
        raise UserError("--steps must be 1 or more, --finetune_epochs 0 or more")
    if request.steps > 1 and not (request.budgets and request.finetune_epochs):
        raise UserError("--steps needs a budget and --finetune_epochs to train between the steps")
    with lock.hold(out):  # two at once would delete each other's steps
        _prune_run(request, config, parent, out)


def _prune_run(
    request: PruneRequest, config: ml_collections.ConfigDict, parent: Run, out: Run
) -> None:
    request = dataclasses.replace(request, parent=str(parent))
    config = child.for_the_net_of(parent, config)
    if out.has(PruneFile.FILE):
        account = records.read(out, PruneFile)
        half.require_same(out, account.request, request)
        saved = _resumed(account, config, out)
        out.remove(HalfPruned.FILE)  # a kill may have come between the one file and the other
        print(f"{out} is pruned already: going on from there", flush=True)
    else:
        _refuse_other_run(out, parent)
        _prune(request, config, parent, out)
        saved = configuration.from_json(configuration.read(out).config)
    todo = ["evaluate", "profile", "inspect"]
    stages.run_stages(saved, str(out), ["train", *todo] if request.finetune_epochs else todo)


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is pruned, how it was asked for, and where it goes."""

    request: PruneRequest
    config: ml_collections.ConfigDict
    parent: Run
    out: Run
    dataset: data.Dataset
    images: Images
    """What filters are judged on, and the certificate measured."""


def _prune(request: PruneRequest, config: ml_collections.ConfigDict, parent: Run, out: Run) -> None:
    trained = train.load(parent)
    dataset = identity.load_own(config, parent)
    if request.finetune_epochs:  # before all that a training would be refused after
        train.check(config, dataset, out, anew=True)
    whole = Remainder.whole(config, trained.params)
    images = Images(config, dataset.splits[request.split], request.kinds)
    work = _Work(request, config, parent, out, dataset, images)
    told = half.begun(out, request, config, parent, trained)
    net, told = _as_it_stands(work, whole, told)
    net, told, cuts = _cut_in_steps(work, whole, net, told)
    if cuts:
        whole = whole.with_layers_of(cuts[0])
    content = _account(work, whole, net, cuts) | told.account
    _begin(out, told)
    _save(work, out, net)
    removal.draw(whole, net, dataset, out)
    done = records.made(PruneFile, records.plain({"weights": trained.digest, **content}))
    records.write(out, done)
    out.remove(HalfPruned.FILE)
    removal.tell(done)


def _as_it_stands(work: _Work, whole: Remainder, told: HalfPruned) -> tuple[Remainder, HalfPruned]:
    """The net of the last step that is there, or the whole one without the layers to be dropped."""
    if told.steps:
        return half.trained(told, work.config, work.out), told
    if not work.request.drop_layers:
        return whole, told
    net, account = _drop_layers(work, whole)
    if account["dropped_layers"]:
        net = _settled(net, work.dataset)
    return net, dataclasses.replace(told, account=account)


def _cut_in_steps(
    work: _Work, whole: Remainder, net: Remainder, told: HalfPruned
) -> tuple[Remainder, HalfPruned, list[CutTold]]:
    """The net after the last cut, and all cuts; it trains after each but the last."""
    request, cuts = work.request, [step.cut for step in told.steps]
    for budgets in _schedule(request, whole)[len(cuts) :]:
        net, cut = _cut(work, net, budgets, first=not cuts)
        cuts.append(records.made(CutTold, cut.to_json()))
        if request.takes_what_counts and cut.removed:
            net = _settled(net, work.dataset)
        if len(cuts) < request.steps:
            _begin(work.out, told)
            _save(work, half.folder(work.out, len(cuts)), net)
            told = half.with_step(told, net, cuts[-1])
            _begin(work.out, told)
            net = half.trained(told, work.config, work.out)
    return net, told, cuts


def _account(
    work: _Work, whole: Remainder, net: Remainder, cuts: Sequence[CutTold]
) -> dict[str, Any]:
    """What a pruning took out of the whole net, and what that did to the logits."""
    request = work.request
    certificate = cuts[-1].certificate if cuts else None
    settled = request.takes_what_counts and norms(net.params)
    if len(cuts) != 1 or request.drop_layers or settled:
        found = certify(whole.pair, net.pair, work.images).to_json()
        certificate = records.made(CertificateTold, found)
    return {
        "request": request,
        "before": totals(whole.pair[0], whole.shape),
        "after": totals(net.pair[0], net.shape),
        "removed": net.gone_from(whole),
        "kept": net.left_of(whole),
        "budgets": cuts[-1].budgets if cuts else {},
        "certificate": certificate,
        "found_on": {"split": request.split, "kinds": list(request.kinds)},
        "steps": cuts,
    }


def _resumed(
    account: PruneFile, config: ml_collections.ConfigDict, out: Run
) -> ml_collections.ConfigDict:
    """The lighter run's configuration, with what is given now and may still change."""
    saved = configuration.from_json(configuration.read(out).config)
    dropped, epochs = account.dropped_layers or (), account.request.finetune_epochs
    given = half.with_net_of(out, config, dropped, epochs)
    half.require_same_training(out, configuration.to_json(saved), configuration.to_json(given))
    return given


def _begin(out: Run, told: HalfPruned) -> None:
    """Mark the folder as half a pruning, from its first file on."""
    out.create()
    records.write(out, told)


def _drop_layers(work: _Work, net: Remainder) -> tuple[Remainder, dict[str, Any]]:
    request, images = work.request, work.images
    paths, probes = list(request.drop_layers), []
    if paths == ["auto"]:
        few = request.judge_images
        fitted = dataclasses.replace(
            images, source=work.dataset.splits["train"], limit=few, task="probing layers"
        )
        probes = probe(*net.pair, fitted, dataclasses.replace(images, limit=few))
        paths = dead_tail(probes, net.pair[0].blocks(net.shape), request.tail_margin)
        for found in probes:
            print(f"{found.path}: a linear probe reads {found.accuracy:.4f} right", flush=True)
        print(f"blocks that add nothing: {', '.join(paths) or 'none'}", flush=True)
    account = {
        "dropped_layers": paths,
        "probes": [dataclasses.asdict(found) for found in probes],
        "started_anew": [],
    }
    if not paths:
        return net, account
    config, params, anew, origin = smaller.without(net.config, net.params, paths)
    account["started_anew"] = anew
    if anew and not request.finetune_epochs:
        verb, them = ("starts", "it") if len(anew) == 1 else ("start", "them")
        print(f"{', '.join(anew)} {verb} at random: give --finetune_epochs to train {them}")
    origin = {path: origin[path] for path, _ in layers(params)}
    account["renamed"] = {old: path for path, old in origin.items() if path != old} or None
    return Remainder(
        config, params, {path: net.kept[old] for path, old in origin.items()}, origin
    ), account


def _schedule(request: PruneRequest, whole: Remainder) -> list[dict[str, int]]:
    """The budgets of each step, in equal ratios from what there is to what is asked for."""
    if not (request.budgets or request.drop or request.filters):
        return []
    before = totals(whole.pair[0], whole.shape)
    return [
        {
            measure: round(before[measure] * (budget / before[measure]) ** (step / request.steps))
            if 0 < budget < before[measure] and step < request.steps
            else budget
            for measure, budget in request.budgets.items()
        }
        for step in range(1, request.steps + 1)
    ]


def _cut(
    work: _Work, net: Remainder, budgets: Mapping[str, int], first: bool
) -> tuple[Remainder, Pruned]:
    request, training = work.request, work.dataset.splits["train"]
    images = dataclasses.replace(work.images, config=net.config, task="removing filters")
    judged = dataclasses.replace(
        images, source=training, limit=request.judge_images, task="judging filters"
    )
    cut = smaller.cut(
        request,
        *net.pair,
        images,
        seed=net.config.seed,
        drop=request.drop if first else None,
        filters=request.filters if first else None,
        budgets=budgets or None,
        judged_on=judged,
    )
    net, config = net.with_layers_of(cut), smaller.configured(net.config, cut.module)
    kept = {
        path: [net.kept[path][index] for index in indices]
        for path, indices in cut.kept.items()
        if indices
    }
    return Remainder(config, cut.variables["params"], kept, net.origin), cut


def _settled(net: Remainder, dataset: data.Dataset) -> Remainder:
    """The same, its batch norms measured anew."""
    return dataclasses.replace(net, params=child.settled(net.config, net.params, dataset))


def _save(work: _Work, run: Run, net: Remainder) -> None:
    """A run's folder that training, or any other stage, goes on from."""
    with net.config.unlocked():
        if epochs := work.request.finetune_epochs:
            configuration.set_epochs(net.config, epochs)
        net.config.data.split_seed = configuration.split_seed(
            configuration.from_json(configuration.read(work.parent).config)
        )
    child.begin(run, work.parent, net.config, net.params, work.dataset)


def _refuse_other_run(out: Run, parent: Run) -> None:
    """UserError for a folder with a run in it that no pruning of its own has begun."""
    if out.is_at(parent.path):
        raise UserError(f"--out={out} is the run itself: give another folder")
    if out.has(HalfPruned.FILE):
        return
    if out.has("config.json"):
        raise UserError(f"{out} holds a run that was not pruned: give another --out")
    identity.refuse_strangers(out)

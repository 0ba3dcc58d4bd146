"""A recipe from the first step to the best epoch, over every device and process."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import ml_collections
import numpy as np

from rice_jax import cluster, data, lock, nets
from rice_jax.errors import NotFiniteError, UserError
from rice_jax.models.statistics import norms
from rice_jax.records import HISTORY, EpochRow, write_history
from rice_jax.run import Run
from rice_jax.train import compiling, diagnosis, origin, schedule, start, state, teacher, weights
from rice_jax.train.board import Board
from rice_jax.train.check import check
from rice_jax.train.checkpoints import Checkpoint, Checkpoints
from rice_jax.train.display import Display
from rice_jax.train.evaluator import Evaluator
from rice_jax.train.feed import Feed, Lagged, data_mesh, require_labels, told_of_large
from rice_jax.train.interrupt import Interrupt, interruptible
from rice_jax.train.norms import Norms, images_looked_at
from rice_jax.train.progress import Progress
from rice_jax.train.reading import Reading
from rice_jax.train.step import Metrics, train_step, training_inputs

_SAVE, _STOP = 1, 2  # signals between processes: a checkpoint is due, a process was told to stop


def train(
    config: ml_collections.ConfigDict,
    run: Run,
    dataset: data.Dataset,
    on_epoch: Callable[[], None] = lambda: None,
    given: state.Params | None = None,
) -> None:
    """Train the net of `config` on `dataset` and leave history.csv and checkpoints in the run.

    Goes on from the newest checkpoint where the run has one, and ends with the same parameters,
    bit for bit on a CPU, as if it had never stopped; does nothing where the run is finished. Before
    it learns on, what was measured of its weights so far goes from its folder. All
    processes of a `jax.distributed` job call it alike.

    Args:
        config: the run's.
        run: its folder.
        dataset: what to learn from.
        on_epoch: called by the first process after each epoch, with history.csv written.
        given: what `given_params` returned, where they have been read already.

    Raises:
        UserError: as `check`; the folder holds another training or is in use, weights are missing
            or of another net, a checkpoint cannot be written, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C, after saving.
        SystemExit: SIGTERM, after saving.
    """
    check(config, dataset, run)
    with lock.hold(run), interruptible() as interrupt:
        start.require_same_checkpoints(run)
        training = _Training(config, run, dataset, interrupt, on_epoch, given)
        del given  # half a gigabyte for vgg16
        try:
            training.finish()
        finally:
            training.display.end()
            training.board.close()
            training.checkpoints.close()


class _Training:
    def __init__(
        self,
        config: ml_collections.ConfigDict,
        run: Run,
        dataset: data.Dataset,
        interrupt: Interrupt,
        on_epoch: Callable[[], None],
        given: state.Params | None,
    ) -> None:
        self.on_epoch = on_epoch
        self.config, self.recipe, self.run = config, config.train, run
        self.splits = dataset.splits
        self.classes = len(dataset.classes)
        self.interrupt = interrupt
        self.display = Display(schedule.epochs(config.train))
        self.module = weights.build(config)
        sizes, images = weights.image_sizes(config), len(self.splits["train"])
        self.schedule = schedule.Schedule(
            config.train,
            sizes,
            nets.validated_at(sizes, config.data.image_size, config.model.get("grid", 0)),
            schedule.images(config.train, images),
        )
        self.reading = Reading(config, self.splits["train"], self.schedule)
        self.mesh = data_mesh()
        self.feed = Feed(self.mesh, config.train.batch_size)
        self.checkpoints = Checkpoints(run.checkpoints)
        newest = self._newest(origin.describe(config, dataset))
        finished = newest and newest.progress.finished(self.recipe)
        self.teacher = None if finished else teacher.load(config, dataset, run)
        self.origin = origin.describe(config, dataset, self.teacher)
        self.state, self.progress = self._start(newest, given)
        self.board = self._board()
        self.saved_at, self.counted_at = time.monotonic(), compiling.clock()
        self.has_history = False

    def finish(self) -> None:
        """Train until the recipe says that it is enough."""
        self._write_history()
        if not self.progress.finished(self.recipe):
            if jax.process_index() == 0:
                start.forget_measured(self.run)
            heavy = told_of_large(self.config, max(self.schedule.sizes))
            for told in filter(None, (heavy, self.schedule.told(self.config))):
                self.display.say(told)
            self.step = self._compiled()
            self.norms = Norms(self.config, self.module)
            self.measure = Evaluator(
                self.module,
                self.classes,
                batch_size=self.config.eval.batch_size,
                image_size=self.config.data.image_size,
                augment_seed=self.config.seed if self.recipe.validation_augmented else None,
                limit=self.recipe.validation_images,
                workers=self.config.data.workers,
            )
            if again := self.progress.restarted(self.recipe):
                self._restart(again)
        while not self.progress.finished(self.recipe):
            self._learn()
            self._end_epoch()
        self.checkpoints.wait()
        self.display.say(
            f"trained: {self.progress.finished(self.recipe)}; best is epoch "
            f"{self.progress.best_epoch} with a validation loss of {self.progress.best_loss:.4f}"
        )

    def _newest(self, untaught: dict[str, Any]) -> Checkpoint | None:
        """The newest checkpoint, which is of the same training; of its teacher nothing is asked."""

        def like(saved: dict[str, Any]) -> state.TrainState:
            origin.require_same(self.run, saved, untaught)
            shape = weights.input_shape(self.config)
            return state.replicated(state.shapes(self.module, shape, self.recipe.frozen), self.mesh)

        newest = self.checkpoints.newest(like)
        number = newest.progress.checkpoint if newest else None
        cluster.require_same(f"newest whole checkpoint in {self.run}", str(number))
        return newest

    def _start(
        self, newest: Checkpoint | None, given: state.Params | None
    ) -> tuple[state.TrainState, Progress]:
        """Where the newest checkpoint stands, or the net before its first step."""
        if newest is None:
            return self._fresh(self.config.seed, given), Progress(self.recipe.learning_rate)
        origin.require_same(self.run, newest.origin, self.origin)
        progress = newest.progress
        if not progress.finished(self.recipe) and progress.step:
            self.display.say(f"going on from epoch {progress.epoch + 1}, step {progress.step}")
        return newest.state, progress

    def _fresh(self, seed: int, given: state.Params | None = None) -> state.TrainState:
        with self.display.during("preparing the first weights"):
            params = weights.initial_params(self.config, self.module, seed=seed, given=given)
            return state.replicate(state.fresh(params, self.recipe.frozen), self.mesh)

    def _compiled(self) -> Any:
        return train_step(
            self.module,
            self.mesh,
            seed=self._seed,
            augment=self.recipe.augment,
            weight_decay=schedule.weight_decay(self.recipe),
            teacher=self.teacher,
        )

    def _board(self) -> Board:
        return Board(self.run, self.progress.history, wanted=self.recipe.tensorboard)

    @property
    def _seed(self) -> int:
        return self.config.seed + self.progress.restarts

    @property
    def _validation_size(self) -> int:
        """Of the images that the epoch under way is validated on."""
        return self.schedule.validation_size(self.progress.epoch)

    def _rate(self, step: int) -> float:
        """Learning rate of a step of the epoch under way, counted from the first epoch's first."""
        return self.schedule.rate(step, self.progress.learning_rate, self.progress.restarts)

    def _learn(self) -> None:
        """Do what is left of the epoch's steps; the host never waits for the one under way."""
        progress = self.progress
        results = Lagged()
        self.counted_at = compiling.clock()
        self.display.begin(
            f"epoch {progress.epoch + 1}/{len(self.schedule.sizes)}",
            self.schedule.images,
            int(progress.images),
        )
        first = progress.step
        for number, batch in enumerate(self._awaited()):
            with progress.timed("feeding"):
                rows = self.feed(batch, self._wish())
            index, rate = np.int32(first + number), np.float32(self._rate(first + number))
            with progress.timed("step"):
                self.state, metrics = self.step(self.state, rows, index, rate)
                signals = [self._count(result) for result in results.push(metrics)]
            if jax.process_count() == 1:
                signals.append(self._wish())
            if any(signals):
                signals += [self._count(result) for result in results.drain()]
                self._stop_clock()
                self._save()
                if _STOP in signals:
                    self._leave()
        with progress.timed("step"):
            for result in results.drain():
                self._count(result)
        self._stop_clock()

    def _awaited(self) -> Iterator[data.Batch]:
        """The rest of the epoch's batches of this process."""
        batches = self.reading.batches(self.progress, self._seed, self.feed.shard)
        while True:
            with self.progress.timed("decoding"):
                batch = next(batches, None)
            if batch is None:
                return
            require_labels(batch, self.classes)
            yield batch

    def _count(self, metrics: Metrics) -> int:
        """Take in a step's metrics; its signal. UserError where they are not finite."""
        if not metrics.finite:
            raise NotFiniteError(self._not_finite())
        progress = self.progress
        progress.add(float(metrics.loss), float(metrics.correct), float(metrics.images))
        self.display.advance(int(metrics.images), progress.loss_sum / progress.images)
        self.interrupt.arm()
        return int(metrics.signal)

    def _wish(self) -> int:
        """What this process would have all of them do at this step."""
        if self.interrupt.signal:
            return _STOP
        due = time.monotonic() - self.saved_at > self.recipe.save_seconds
        return _SAVE if due and jax.process_index() == 0 else 0

    def _end_epoch(self) -> None:
        """Validate, write the epoch's row, save."""
        self._settle()
        source, size = self.splits["validation"], self._validation_size
        self.display.begin("validation", schedule.validation_images(self.recipe, len(source)))
        with self.progress.timed("validation"):
            measured = self.measure(
                self.state.params,
                source,
                image_size=size,
                signal=lambda: _STOP if self.interrupt.signal else 0,
                on_batch=self.display.advance,
            )
        self.interrupt.arm()
        if measured is None:
            self._save()
            self._leave()
        loss, confusion = measured
        if not math.isfinite(loss):
            raise NotFiniteError(
                f"the validation loss is not finite after epoch {self.progress.epoch + 1}, at a "
                f"learning rate of {self._rate(self.progress.step - 1):.3g}; {self._advice()}"
            )
        accuracy = float(np.trace(confusion) / confusion.sum())
        self.progress.learning_rate = self._rate(self.progress.step - 1)
        row = self.progress.end_epoch(
            self.recipe,
            loss,
            accuracy,
            seed=self._seed,
            image_size=self.schedule.size(self.progress.epoch),
            validation_size=None if size == self.config.data.image_size else size,
        )
        self._look_for_collapse(row, diagnosis.chance(confusion))
        if again := self.progress.restarted(self.recipe):
            self._restart(again)
            return
        self._save()
        self.display.epoch(row, self.schedule.seconds_left(self.progress.history))
        with self.progress.timed("drawing"):
            self._write_history()
            self.board.epoch(row)
            if jax.process_index() == 0:
                self.on_epoch()

    def _settle(self) -> None:
        """Measure batch norms: in an epoch of few steps their running averages lag behind."""
        if not norms(self.state.trainable):
            return
        source = self.splits["train"]
        self.display.begin("measuring norms", images_looked_at(self.config, source))
        with self.progress.timed("validation"):
            params = self.norms(
                self._host_params(), source, self._validation_size, self.display.advance
            )
            learning = state.partition(params, self.recipe.frozen)[0]
            self.state = self.state.replace(trainable=state.replicate(learning, self.mesh))

    def _look_for_collapse(self, row: EpochRow, chance: float) -> None:
        if not diagnosis.rests_at(chance, row.train_loss, row.val_loss):
            self.progress.rest(0, silent=False)
            return
        images, labels = self.reading.examples(self.progress, self._seed)
        found = diagnosis.collapse(
            self.module,
            self._host_params(),
            images / np.float32(255),
            labels,
            loss=row.val_loss,
            chance=chance,
            frozen=self.recipe.frozen,
        )
        self.progress.rest(
            self.schedule.steps_an_epoch, silent=bool(found.silent), hopeless=found.alike
        )
        self.display.say(f"WARNING: epoch {row.epoch}: {found}")

    def _restart(self, again: Progress) -> None:
        """Begin again with the next seed; the failed net's numbers are dropped."""
        slower = " at half the rate" if self.recipe.schedule == schedule.QUICK else ""
        self.display.say(
            f"epoch {self.progress.epoch} ends the try with seed {self._seed}: "
            f"beginning again with seed {self._seed + 1}{slower} (restart {again.restarts})"
        )
        self.progress = again
        self.state, self.step = self._fresh(self._seed), self._compiled()
        self._save()
        self._write_history()
        self.board.close()
        self.board = self._board()

    def _not_finite(self) -> str:
        """Do the step that failed once more, slowly, to say where."""
        pixels, labels = self.reading.examples(self.progress, self._seed)
        images, dropout_key = training_inputs(
            pixels,
            seed=self._seed,
            index=self.progress.step,
            augment=self.recipe.augment,
        )
        where = diagnosis.first_not_finite(
            self.module, self._host_params(), np.asarray(images), labels, dropout_key
        )
        return (
            f"the loss is not finite at step {self.progress.step + 1} (epoch "
            f"{self.progress.epoch + 1}, batch {self.progress.batch + 1}), at a learning rate of "
            f"{self._rate(self.progress.step):.3g}; it first shows in {where}; {self._advice()}"
        )

    def _advice(self) -> str:
        best = self.progress.best_epoch
        stands = f"epoch {best} stays the best; " if best else ""
        field = "quick.peak_rate" if self.recipe.schedule == schedule.QUICK else "learning_rate"
        return f"{stands}try a lower --config.train.{field} in another folder"

    def _host_params(self) -> state.Params:
        return jax.tree.map(lambda array: np.asarray(array.addressable_data(0)), self.state.params)

    def _save(self) -> None:
        if self.has_history and not self.run.has(HISTORY):  # Orbax may have made the folder anew
            raise UserError(f"{self.run.path} was removed while the run was at work")
        with self.progress.timed("saving"):
            self.checkpoints.save(Checkpoint(self.state, self.progress, self.origin))
        self.saved_at = time.monotonic()

    def _stop_clock(self) -> None:
        """Add to the epoch's seconds what its steps took since the last time."""
        now = compiling.clock()
        self.progress.seconds += now - self.counted_at
        self.counted_at = now

    def _leave(self) -> NoReturn:
        self.checkpoints.wait()
        self.display.say(
            f"stopped in epoch {self.progress.epoch + 1} after step {self.progress.step} and saved"
        )
        self.interrupt.leave()

    def _write_history(self) -> None:
        """Write all rows anew: the checkpoint knows which epochs there are, and where none is."""
        self.has_history = bool(self.progress.history) and jax.process_index() == 0
        if self.has_history:
            write_history(self.run, self.progress.history)
        elif jax.process_index() == 0:
            self.run.remove(HISTORY)  # of a try that did not learn

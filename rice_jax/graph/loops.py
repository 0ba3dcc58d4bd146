"""A trace with its loops and branches opened: to count what they do, not to run it.

A loop is replaced by its body, once, with how often it runs; a branch by the dearest of its
choices. What is left is one flat list of equations in which every value has a maker, joined by
three equations of our own: `ENTER` is an operand as the body sees it, `CARRY` what one iteration
hands to the next, `LEAVE` what is seen of the body outside. What `shard_map` spreads over devices
is a loop over them. Their parameter 'of' is the loop or
branch, a CARRY's 'update' the value that takes its output's place in the next iteration. A CARRY
has among its inputs all that the value depends on in some iteration, what it begins with first.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rice_jax.graph.equations import Body, Equation, Value, needed, scanned
from rice_jax.graph.primitives import COLLECTIVES
from rice_jax.graph.trace import Trace

ENTER, CARRY, LEAVE = "enter", "carry", "leave"
LINKS = frozenset({ENTER, CARRY, LEAVE})

Cost = Callable[[Iterable[tuple[Equation, int]]], Any]
State = dict[int, jax.Array]

_MOST_TRIPS = 10_000_000
_LARGEST_STATE = 1_000
"""Elements that a loop's condition may depend on for the loop to be run to count its trips."""


@dataclasses.dataclass(frozen=True)
class Opened:
    """A trace without loops and branches, but for those loops whose trips are not known."""

    trace: Trace
    """Only what its outputs need: JAX drops the rest before XLA sees it."""
    times: Mapping[Equation, int]
    """How often each equation runs in one call of the net."""
    choices: Mapping[Equation, int]
    """For each equation of a branch the number of branches of which it is the dearest."""
    passed_over: tuple[Equation, ...]
    """The equations of the cheaper branches."""


def opened(traced: Trace, cost: Cost) -> Opened:
    """Open the loops and branches of a trace.

    A `scan` runs its body `length` times. A `while` runs as often as its condition holds, where
    that depends on constants alone (a counter): its condition is run to find out. Where it depends
    on the input or on variables the loop stays one equation. Of a branch whose index is no
    constant the dearest choice is taken. A `shard_map` runs its body on each device of the mesh's
    axes that it is over, also where all of them do the same.

    Args:
        traced: the trace.
        cost: what pairs of an equation and how often it runs cost, as anything that compares.
    """
    opening = _Opening(traced, cost)
    equations = opening.open(traced.equations, set(traced.outputs), 1)
    layers = {
        path: dataclasses.replace(layer, output=opening.layer_outputs.get(path, layer.output))
        for path, layer in traced.layers.items()
    }
    flat = dataclasses.replace(traced, equations=equations, layers=layers, choices={})
    passed = dict.fromkeys(opening.passed_over)
    return Opened(flat, opening.times, opening.choices, tuple(passed))


@dataclasses.dataclass
class _Loop:
    """A loop in terms that `scan`, `while` and `shard_map` share."""

    body: Body
    trips: int
    entering: list[tuple[Value, Value]]
    """Operands and what the body sees of them: the same in each iteration, or a slice."""
    carried: list[tuple[Value, Value, Value, Value]]
    """What goes in first, the body's input, the body's output, the loop's output."""
    leaving: list[tuple[Value, Value]]
    """The body's outputs and the loop's, where those of all iterations are put together."""


class _Opening:
    def __init__(self, traced: Trace, cost: Cost) -> None:
        self.times: dict[Equation, int] = {}
        self.choices: dict[Equation, int] = {}
        self.passed_over: list[Equation] = []
        self.layer_outputs: dict[str, Value] = {}
        self._cost = cost
        self._producers: dict[Value, Equation] = {}
        self._know(traced.equations)

    def _know(self, equations: Sequence[Equation]) -> None:
        self._producers.update((v, equation) for equation in equations for v in equation.outputs)

    def open(self, equations: Sequence[Equation], wanted: set[Value], times: int) -> list[Equation]:
        """The equations that the wanted values need; `wanted` grows by what those read."""
        backwards: list[Equation] = []
        for equation in reversed(equations):
            if not wanted.isdisjoint(equation.outputs):
                backwards.extend(reversed(self._step(equation, wanted, times)))
        return backwards[::-1]

    def _step(self, equation: Equation, wanted: set[Value], times: int) -> list[Equation]:
        if equation.name == "cond":
            return self._branch(equation, wanted, times)
        shared = {"scan": _scan, "shard_map": _devices, "while": self._while}
        loop = shared[equation.name](equation) if equation.name in shared else None
        if loop is not None:
            return self._loop(equation, loop, wanted, times)
        wanted.update(equation.inputs)
        self.times[equation] = times
        return [equation]

    def _loop(
        self, equation: Equation, loop: _Loop, wanted: set[Value], times: int
    ) -> list[Equation]:
        self._know(loop.body.equations)
        self.layer_outputs |= loop.body.layer_outputs
        live = {made for made, out in loop.leaving if out in wanted}
        live |= {made for _, _, made, out in loop.carried if out in wanted}
        while True:
            read = _read(loop.body, live)
            grown = live | {made for _, seen, made, _ in loop.carried if seen in read}
            if grown == live:
                break
            live = grown
        first = [
            self._link(ENTER, equation, [operand], seen, times * loop.trips)
            for operand, seen in loop.entering
            if seen in read
        ]
        first += [
            self._link(
                CARRY, equation, _reached(loop, made, init), seen, times * loop.trips, update=made
            )
            for init, seen, made, _ in loop.carried
            if seen in read
        ]
        inside = self.open(loop.body.equations, set(live), times * loop.trips)
        pairs = [*loop.leaving, *((made, out) for _, _, made, out in loop.carried)]
        last = [
            self._link(LEAVE, equation, [made], out, times) for made, out in pairs if out in wanted
        ]
        wanted.update(value for link in first for value in link.inputs)
        return [*first, *inside, *last]

    def _branch(self, equation: Equation, wanted: set[Value], times: int) -> list[Equation]:
        index, *operands = equation.inputs
        pairs = [list(zip(body.outputs, equation.outputs, strict=True)) for body in equation.bodies]
        reads = [{made for made, out in outputs if out in wanted} for outputs in pairs]
        entries, alternatives = [], []
        for body, read in zip(equation.bodies, reads, strict=True):
            self._know(body.equations)
            entries.append(
                [
                    self._link(ENTER, equation, [operand], seen, times)
                    for operand, seen in zip(operands, body.inputs, strict=True)
                ]
            )
            alternatives.append(self.open(body.equations, read, times))
        chosen = self._known_choice(index, len(alternatives))
        if chosen is None:
            costs = [self._cost((e, self.times[e]) for e in branch) for branch in alternatives]
            chosen = costs.index(max(costs))
            self.choices |= dict.fromkeys(alternatives[chosen], len(alternatives))
            rest = (*alternatives[:chosen], *alternatives[chosen + 1 :])
            self.passed_over += itertools.chain.from_iterable(rest)
        self.layer_outputs |= equation.bodies[chosen].layer_outputs
        first = [link for link in entries[chosen] if link.outputs[0] in reads[chosen]]
        last = [
            self._link(LEAVE, equation, [made], out, times)
            for made, out in pairs[chosen]
            if out in wanted
        ]
        wanted.update([index], *(link.inputs for link in first))
        return [*first, *alternatives[chosen], *last]

    def _known_choice(self, index: Value, branches: int) -> int | None:
        constant = self._constant(index)
        return None if constant is None else int(np.clip(constant, 0, branches - 1))

    def _link(
        self,
        name: str,
        whole: Equation,
        inputs: Sequence[Value],
        output: Value,
        times: int,
        **params: Value,
    ) -> Equation:
        link = Equation(name, tuple(inputs), (output,), {"of": whole, **params}, whole.layer, None)
        self._producers[output] = link
        self.times[link] = times
        return link

    def _while(self, equation: Equation) -> _Loop | None:
        """A `while` with its trips, None where they are not known."""
        _, body = equation.bodies
        tests, consts = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        entering = zip(equation.inputs[tests : tests + consts], body.inputs, strict=False)
        inits = equation.inputs[tests + consts :]
        carried = zip(inits, body.inputs[consts:], body.outputs, equation.outputs, strict=True)
        trips = self._trips(equation, tests, consts)
        return None if trips is None else _Loop(body, trips, list(entering), list(carried), [])

    def _trips(self, equation: Equation, tests: int, consts: int) -> int | None:
        """How often the condition holds, run on what it depends on; None for no constants."""
        condition, body = equation.bodies
        read = _read(condition, condition.outputs)
        places = {i for i, seen in enumerate(condition.inputs[tests:]) if seen in read}
        while True:
            updates = [body.outputs[i] for i in sorted(places)]
            read_by_body = _read(body, updates)
            grown = places | {i for i, v in enumerate(body.inputs[consts:]) if v in read_by_body}
            if grown == places:
                break
            places = grown
        fixed = dict(zip(condition.inputs[:tests], equation.inputs, strict=False))
        fixed |= dict(zip(body.inputs[:consts], equation.inputs[tests:], strict=False))
        operands = [operand for seen, operand in fixed.items() if seen in read | read_by_body]
        inits = {i: equation.inputs[tests + consts + i] for i in sorted(places)}
        steps = [*needed(condition.equations, condition.outputs), *needed(body.equations, updates)]
        constants: dict[Value, Any] = {}
        for value in (*operands, *inits.values()):
            constants[value] = self._constant(value)
        if any(c is None for c in constants.values()) or any(map(_needs_others, steps)):
            return None
        known = {seen: constants.get(operand) for seen, operand in fixed.items()}

        def holds(state: dict[int, jax.Array]) -> jax.Array:
            seen = {condition.inputs[tests + i]: array for i, array in state.items()}
            return _run(condition, known | seen, condition.outputs)[0]

        def step(state: dict[int, jax.Array]) -> dict[int, jax.Array]:
            seen = {body.inputs[consts + i]: array for i, array in state.items()}
            return dict(zip(state, _run(body, known | seen, updates), strict=True))

        return _count_trips(holds, step, {i: constants[init] for i, init in inits.items()})

    def _constant(self, value: Value) -> np.ndarray | None:
        """What a small value is, where it is made of constants alone."""
        made = self._producers.get(value)
        if value.constant is not None or made is None or value.size > _LARGEST_STATE:
            return value.constant
        if made.name in LINKS:
            same = made.name == ENTER and made.inputs[0].shape == value.shape
            return self._constant(made.inputs[0]) if same else None
        operands = [self._constant(operand) for operand in made.inputs]
        if made.bodies or _needs_others(made) or any(c is None for c in operands):
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(made.apply(*operands)[made.outputs.index(value)])


def _scan(equation: Equation) -> _Loop:
    """The parts of a `scan`."""
    (body,) = equation.bodies
    same, carried = scanned(equation)
    entering = list(zip(equation.inputs, body.inputs, strict=True))
    leaving = list(zip(body.outputs, equation.outputs, strict=True))
    carry = zip(entering[same:][:carried], leaving[:carried], strict=True)
    return _Loop(
        body,
        equation.params["length"],
        entering[:same] + entering[same + carried :],
        [(*pair, *result) for pair, result in carry],
        leaving[carried:],
    )


def _devices(equation: Equation) -> _Loop:
    """The parts of a `shard_map`: its operands are cut, or go to each device whole."""
    (body,) = equation.bodies
    params = equation.params
    axes = params["newly_manual_axes" if "newly_manual_axes" in params else "manual_axes"]
    return _Loop(
        body,
        math.prod(params["mesh"].shape[axis] for axis in axes),
        list(zip(equation.inputs, body.inputs, strict=True)),
        [],
        list(zip(body.outputs, equation.outputs, strict=True)),
    )


def _needs_others(equation: Equation) -> bool:
    """Whether it asks the host or other devices, so that it cannot be run here."""
    return "callback" in equation.name or equation.name in COLLECTIVES


def _read(body: Body, wanted: Iterable[Value]) -> set[Value]:
    """The values that are read to make the wanted ones, and those themselves."""
    wanted = set(wanted)
    return wanted.union(*(equation.inputs for equation in needed(body.equations, wanted)))


def _reached(loop: _Loop, made: Value, init: Value) -> list[Value]:
    """What goes into a loop that a carried value depends on in some iteration, `init` first."""
    outside = {seen: operand for operand, seen in loop.entering}
    outside |= {seen: first for first, seen, _, _ in loop.carried}
    follows = {seen: update for _, seen, update, _ in loop.carried}
    live = {made}
    while not live >= (more := {follows[v] for v in _read(loop.body, live) if v in follows}):
        live |= more
    read = _read(loop.body, live)
    return [init, *(v for seen, v in outside.items() if seen in read and v is not init)]


def _run(body: Body, known: Mapping[Value, Any], outputs: Sequence[Value]) -> list[jax.Array]:
    arrays = dict(known)

    def read(value: Value) -> Any:
        return arrays[value] if value.constant is None else value.constant

    for equation in needed(body.equations, outputs):
        results = equation.apply(*map(read, equation.inputs))
        arrays.update(zip(equation.outputs, results, strict=True))
    return [jnp.asarray(read(value)) for value in outputs]


def _count_trips(
    holds: Callable[[State], jax.Array], step: Callable[[State], State], start: State
) -> int | None:
    """How often `step` runs from `start` while `holds`; None for too often to wait for."""

    def more(counted: tuple[jax.Array, State]) -> jax.Array:
        return holds(counted[1]) & (counted[0] < _MOST_TRIPS)

    first = (jnp.int32(0), jax.tree.map(jnp.asarray, start))
    trips, _ = jax.lax.while_loop(more, lambda c: (c[0] + 1, step(c[1])), first)
    return None if trips == _MOST_TRIPS else int(trips)

"""Which row of the table an operation belongs to."""

from rice_jax.graph.equations import sources
from rice_jax.graph.loops import LINKS
from rice_jax.graph.primitives import MOVES
from rice_jax.graph.scopes import around
from rice_jax.graph.trace import Equation, Trace, Value
from rice_jax.profile.rules import is_elementwise
from rice_jax.profile.softmax import softmaxes

_OPERATIONS = {
    "add_any": "add",
    "conv_general_dilated": "conv",
    "dot_general": "dot",
    "ragged_dot_general": "ragged_dot",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_sum": "sum",
    "reduce_window_max": "max_pool",
    "reduce_window_min": "min_pool",
    "reduce_window_sum": "sum_pool",
}
_AVERAGES = {"sum": "mean", "sum_pool": "avg_pool"}


class Attribution:
    """Rows by path, for equations asked for in order of execution.

    A layer is a row. An operation that a composite module (one with layers inside) does in its
    own call has a row of its own, named after it: a functional pool, a mean, a residual addition.
    But what such a module does element by element to the result of one row (its ReLU, a cast)
    belongs to that row, and what reads the module's own parameters belongs to the module. What
    only moves data costs nothing and has no row unless it is a layer. Arithmetic on weights
    belongs to the layer that has them, on constants to a row 'constants'. What goes in and out of
    a loop has no row, and what is done to it there has one of its own.
    """

    def __init__(self, traced: Trace) -> None:
        self.types = {path: layer.module.__name__ for path, layer in traced.layers.items()}
        self._traced = traced
        self._composites = {parent for path in traced.layers for parent in around(path)[:-1]}
        self._softmaxes = softmaxes(traced)
        self._softmax_rows: dict[Equation, str] = {}
        self._constants_rows: dict[str, str] = {}
        # What made each value that depends on the input: a row, or an equation without one.
        self._makers: dict[Value, str | Equation | None] = {traced.input: None}
        # The layer whose variables each value that does not depend on the input is made of.
        self._owners = dict(traced.owners)

    def row(self, equation: Equation, counted: bool) -> str | None:
        """Path of the equation's row, None where it has none; `counted` if a rule counts it."""
        makers = {self._makers[value] for value in equation.inputs if value in self._makers}
        owners = {self._owners[value] for value in equation.inputs if value in self._owners}
        only_maker = next(iter(makers)) if len(makers) == 1 else None
        if equation.name in LINKS:
            row = None
        elif equation.layer not in self._composites or equation.layer in owners:
            row = equation.layer
        elif equation in self._softmaxes:
            row = self._softmax_row(equation)
        elif equation.name in MOVES or not counted:
            row = None
        elif isinstance(only_maker, str) and is_elementwise(equation):
            row = only_maker
        elif makers:
            row = self.new_row(equation.layer, self._operation(equation))
        elif owners & self.types.keys():
            row = min(owners & self.types.keys())
        else:
            row = self._constants_row(equation.layer)
        for value in equation.outputs:
            self._note(equation, value, row)
        return row

    def _note(self, equation: Equation, value: Value, row: str | None) -> None:
        """Remember what made an output of an equation of the row, or whose it is."""
        read = sources(equation, value)
        makers = {self._makers[each] for each in read if each in self._makers}
        owners = {self._owners[each] for each in read if each in self._owners}
        if makers:
            only_maker = next(iter(makers)) if len(makers) == 1 else None
            free = only_maker if equation.name in MOVES and only_maker is not None else equation
            self._makers[value] = free if row is None else row
        elif owners:
            self._owners[value] = min(owners)

    def new_row(self, layer: str, operation: str) -> str:
        """A path that no row has yet: 'block/add', 'block/add_2', ..."""
        path, number = _join(layer, operation), 1
        while path in self.types:
            number += 1
            path = f"{_join(layer, operation)}_{number}"
        self.types[path] = operation
        return path

    def _constants_row(self, layer: str) -> str:
        if layer not in self._constants_rows:
            self._constants_rows[layer] = self.new_row(layer, "constants")
        return self._constants_rows[layer]

    def _softmax_row(self, equation: Equation) -> str:
        last = self._softmaxes[equation]
        if last not in self._softmax_rows:
            self._softmax_rows[last] = self.new_row(equation.layer, "softmax")
        return self._softmax_rows[last]

    def _operation(self, equation: Equation) -> str:
        """A reader's name of the operation: a sum that is divided by a number is a mean."""
        name = _OPERATIONS.get(equation.name, equation.name)
        if name not in _AVERAGES:
            return name
        readers = self._traced.consumers(equation.outputs[0])
        while len(readers) == 1 and readers[0].name in MOVES:
            readers = self._traced.consumers(readers[0].outputs[0])
        divided = any(r.name == "div" and r.inputs[1] not in self._makers for r in readers)
        return _AVERAGES[name] if divided else name


def _join(layer: str, name: str) -> str:
    return f"{layer}/{name}" if layer else name

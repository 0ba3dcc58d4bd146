"""Classes of JAX's primitives, by name: what each does to the numbers in an array.

What a primitive costs, bounds or ties together is in the rule tables of profile/, inspection/ and
prune/, one for each question; what they have in common is here.
"""

RENAMES = frozenset(
    {
        "copy",
        "copy_p",
        "device_put",
        "name",
        "optimization_barrier",
        "sharding_constraint",
        "stop_gradient",
    }
)
"""Each output is the operand at its place, under another name."""

ARRANGES = frozenset(
    {"broadcast_in_dim", "expand_dims", "reshape", "rev", "squeeze", "tile", "transpose"}
)
"""All numbers of one operand at other places, some of them maybe repeated."""

GATHERS = frozenset(
    {"all_gather", "all_gather_invariant", "all_to_all", "axis_index", "pbroadcast", "ppermute"}
)
"""What devices tell each other, or which of them it is, without computing."""

COLLECTIVES = GATHERS | {
    *("pmax", "pmin", "psum", "psum2", "psum_invariant", "reduce_scatter", "ragged_all_to_all"),
}
"""What one device cannot do alone; they are met within `shard_map`."""

MOVES = (
    RENAMES
    | ARRANGES
    | GATHERS
    | {
        "concatenate",
        "dynamic_slice",
        "dynamic_update_slice",
        "iota",
        "pad",
        "slice",
        "split",
    }
)
"""What computes nothing: renamed, arranged, cut into parts or put together."""

CASTS = frozenset({"convert_element_type", "reduce_precision"})
"""The same numbers in another precision."""

ALIASES = RENAMES | ARRANGES | CASTS
"""What leaves an array the same for a reader who asks where it comes from."""

ELEMENTWISE = frozenset(
    {
        *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2"),
        *("atanh", "cbrt", "ceil", "clamp", "cos", "cosh", "digamma", "div", "eq", "erf"),
        *("erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow"),
        *("is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul"),
        *("ne", "neg", "nextafter", "not", "or", "pow", "real", "relu", "rem", "round", "rsqrt"),
        *("select_n", "sign", "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor"),
    }
)
"""Each number of the output is computed from the operands' numbers at its own place."""

REDUCTIONS = frozenset(
    {
        *("argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or"),
        *("reduce_prod", "reduce_sum"),
    }
)
"""Whole axes (parameter 'axes') vanish into one number each."""

WINDOWS = frozenset({"reduce_window_max", "reduce_window_min", "reduce_window_sum"})
"""Each window (parameter 'window_dimensions') becomes one number."""

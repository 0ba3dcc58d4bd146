"""From what a user gives for a net to one that the tools know."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import flax.linen as nn

from rice_jax.errors import UserError
from rice_jax.graph.boxes import unboxed
from rice_jax.graph.fronts.function import FunctionNet
from rice_jax.graph.fronts.linen import LinenNet
from rice_jax.graph.fronts.protocol import PureNet

if TYPE_CHECKING:
    from flax import nnx

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


def front(module: Any, params: Any = None) -> PureNet:
    """The net behind a Linen module, an NNX module, or a function with its `params`.

    UserError for anything else.
    """
    if isinstance(module, PureNet):
        return module
    if isinstance(module, nn.Module):
        return LinenNet(module)
    if _is_nnx(module):
        from rice_jax.graph.fronts.nnx import NNXNet  # importing flax.nnx takes seconds

        return NNXNet(module)
    kind = _name(module)
    if isinstance(module, type):
        raise UserError(f"{kind} is a class: give an instance of it, {kind}(...)")
    if not _takes_two(module):
        raise UserError(
            f"{kind} is no net: give a flax.linen module, a flax.nnx module, or a function of "
            "params and images whose layers are marked with jax.named_scope"
        )
    if params is None:
        raise _too_few(module)
    return FunctionNet(module, params)


def opened(module: Any, variables: Any = None) -> tuple[PureNet, Any]:
    """The net and its variables as plain nested dictionaries.

    Args:
        module: a Linen module, an NNX module, a function, or a net that was opened before.
        variables: of a Linen module, params of a function; None for an NNX module's own.

    Raises:
        UserError: for what is no net, for variables that are missing or too many.
    """
    if isinstance(module, PureNet):
        return module, variables
    if _is_nnx(module):
        net: Any = front(module)
        if variables is not None:
            raise _too_many(net)
        return net, net.variables
    if isinstance(module, nn.Module):
        if not isinstance(variables, Mapping):
            raise _too_few(module)
        return LinenNet(module, boxed=variables), unboxed(variables)
    net = front(module, variables)
    return net, net.variables


class OfVariables(Protocol[P, R]):
    """A function of a net's numbers: those of an NNX module are in it, others come after it."""

    @overload
    def __call__(self, module: "nnx.Module", /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, module: Any, variables: Any, /, *args: P.args, **kwargs: P.kwargs) -> R: ...


class OfNet(Protocol[P, R]):
    """A function of what a net is: of a function that is told by its params, which come after."""

    @overload
    def __call__(
        self, module: "nn.Module | nnx.Module | PureNet", /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    def __call__(
        self, module: Callable[..., Any], params: Any, /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...


def takes_variables(function: Callable[Concatenate[Any, Any, P], R]) -> OfVariables[P, R]:
    """Let a function of a net and its plain variables take any kind of net.

    An NNX module is followed by no variables, a function by its params.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, PureNet):
            return function(module, *args, **kwargs)
        if "variables" in kwargs:
            args = (kwargs.pop("variables"), *args)
        if _is_nnx(module):
            if args and _are_variables(args[0]):
                raise _too_many(front(module))
            net, variables = opened(module)
        else:
            if not (isinstance(module, nn.Module) and args and _are_variables(args[0])):
                _check_number(signature, module, len(args), kwargs)
            net, variables = opened(module, args[0])
            args = args[1:]
        return function(net, variables, *args, **kwargs)

    return call  # type: ignore[return-value]


def takes_net(function: Callable[Concatenate[Any, P], R]) -> OfNet[P, R]:
    """Let a function of a net's computation, not its numbers, take any kind of net."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(module: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, PureNet | nn.Module) or _is_nnx(module):
            net = front(module)
            if args and _are_variables(args[0]):
                raise UserError(
                    f"{function.__name__} needs no variables of {net.name}: leave them out"
                )
            return function(net, *args, **kwargs)
        _check_number(signature, module, len(args) - 1, kwargs)
        return function(front(module, args[0]), *args[1:], **kwargs)

    return call  # type: ignore[return-value]


def _check_number(
    signature: inspect.Signature, module: Any, positional: int, kwargs: Mapping[str, Any]
) -> None:
    """UserError where fewer arguments follow the net than there must: its variables are missing."""
    _, *others = signature.parameters.values()
    needed = [
        each.name
        for each in others
        if each.default is each.empty
        and each.kind is each.POSITIONAL_OR_KEYWORD
        and each.name not in kwargs
    ]
    if positional < len(needed):
        front(module, params=())  # refuses what is no net
        raise _too_few(module)


def _too_few(module: Any) -> UserError:
    if isinstance(module, nn.Module):
        return UserError(
            f"{_name(module)} is a Linen module: its variables come after it, {{'params': ...}} as "
            "init returned them"
        )
    return UserError(
        f"{_name(module)} is taken for a function of params and images: its params come after it"
    )


def _too_many(net: PureNet) -> UserError:
    return UserError(
        f"{net.name} is an NNX module, which holds its variables itself: give no others"
    )


def _takes_two(given: Any) -> bool:
    """Whether it can be called with params and images."""
    try:
        inspect.signature(given).bind_partial(None, None)
    except TypeError:
        return False
    except ValueError:  # of what tells no signature
        return callable(given)
    return True


def _are_variables(given: Any) -> bool:
    """Whether an argument is what variables are given as; NNX's State is a mapping too."""
    return isinstance(given, Mapping)


def is_nnx(module: Any) -> bool:
    """Whether it is an NNX module, or a class of such."""
    nnx = sys.modules.get("flax.nnx")  # without it there is no module of its kind
    kind = module if isinstance(module, type) else type(module)
    return nnx is not None and issubclass(kind, nnx.Module)


def _is_nnx(module: Any) -> bool:
    return not isinstance(module, type) and is_nnx(module)


def _name(given: Any) -> str:
    return getattr(given, "__name__", type(given).__name__)

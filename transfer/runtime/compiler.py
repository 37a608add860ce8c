"""Leave out torch's compiler, which no command uses.

torchvision.ops, a transformer of timm, operations on the meta device and every optimizer import ``torch._dynamo`` for
one function each. That takes 1.1 s of processor time, about as long as torch itself. torchvision.ops also imports
``torch.onnx``, to tell an exporter about operations of detectors.
"""

import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

COMPILER, UTILITIES = "torch._dynamo", "torch._dynamo.utils"
DETECTOR_SYMBOLS = "torchvision.ops._register_onnx_ops"


class _Deferred(types.ModuleType):
    """A module that is imported when an attribute of it is first read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # read by the import system itself
            raise AttributeError(name)
        return getattr(_import_compiler(self.__name__), name)


def _import_compiler(name: str) -> types.ModuleType:
    _remove_deferred()
    return importlib.import_module(name)


def _remove_deferred() -> None:
    for name in (COMPILER, UTILITIES):
        if isinstance(sys.modules.get(name), _Deferred):
            del sys.modules[name]


def _disable(fn: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
    """Decorate `fn` as ``torch._dynamo.disable`` does; nothing has to be disabled while the compiler is not there."""
    if fn is None:
        return lambda fn: _disable(fn, *args, **options)

    @functools.wraps(fn)
    def call(*values: Any, **named: Any) -> Any:
        compiler = sys.modules.get(COMPILER)
        if compiler is None or isinstance(compiler, _Deferred):
            return fn(*values, **named)
        return compiler.disable(fn, *args, **options)(*values, **named)

    return call


def _is_compile_supported(device: str) -> bool:
    return _import_compiler(UTILITIES).is_compile_supported(device)


@contextmanager
def defer_compiler() -> Iterator[None]:
    """Within the block, let imports and decorators use ``torch._dynamo`` without importing it, nor the exporter.

    It is imported when an attribute of it is read that they do not use. Where it is imported already, nothing is
    deferred.
    """
    if COMPILER in sys.modules:
        yield
        return
    compiler, utilities = _Deferred(COMPILER), _Deferred(UTILITIES)
    vars(compiler).update(disable=_disable, graph_break=lambda *_, **__: None)
    vars(utilities)["is_compile_supported"] = _is_compile_supported
    symbols = types.ModuleType(DETECTOR_SYMBOLS)
    vars(symbols)["_register_custom_op"] = lambda: None
    sys.modules |= {COMPILER: compiler, UTILITIES: utilities}
    sys.modules.setdefault(DETECTOR_SYMBOLS, symbols)
    try:
        yield
    finally:
        _remove_deferred()
        if sys.modules[DETECTOR_SYMBOLS] is symbols:
            del sys.modules[DETECTOR_SYMBOLS]

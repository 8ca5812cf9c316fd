"""Functions that a setting names: ``package.module:function``, found where Python finds packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, Final

from holdfast.errors import UsageError

FORM: Final = "package.module:function"


def function_named(name: str) -> Callable[..., Any]:
    """The function, or whatever else can be called, under this name; its module is imported.

    Args:
        name: ``package.module:function``; the part behind the colon may be a path of attributes. Modules of the
            directory in which the program was started are found too, as `python -m` finds them.

    Raises:
        UsageError: there is none, or its module cannot be imported.
    """
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise UsageError(f"no function: {name!r:.120}", hint=f"it is named as {FORM}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise UsageError(f"{name}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"{name}: {module} has no function {path}", hint=f"it is named as {FORM}")
    return found  # type: ignore[no-any-return]

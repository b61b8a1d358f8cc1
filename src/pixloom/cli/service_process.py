"""Becoming the process of a service: the command line imports none of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

__all__ = ["become"]


def become(module: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str]) -> NoReturn:
    """Become `python -m MODULE ARGUMENTS…` of a service.

    Args:
        module: The module, in the package of the service.
        arguments: Its arguments.
        environment: Variables in addition to those of this process.

    Raises:
        MachineError: If the package is not installed.
    """
    import os
    from importlib.util import find_spec

    from pixloom.errors import MachineError

    package = module.partition(".")[0]
    if find_spec(package) is None:
        service = package.removeprefix("pixloom_")
        raise MachineError(f"The {service} is not installed here. Install it: pip install 'pixloom[{service}]'.")
    sys.stdout.flush()
    argv = [sys.executable, "-m", module, *arguments]
    os.execve(sys.executable, argv, {**os.environ, **environment})  # noqa: S606 - our own module, no shell

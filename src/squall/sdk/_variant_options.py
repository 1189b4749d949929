"""The parameters of `.with_options`, `.with_concurrency` and `.with_batching`, checked, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from squall.protocol.function import FunctionOptions, Hosting, Resources
from squall.sdk._batched import check_batching
from squall.sdk._concurrent import check_concurrency
from squall.sdk._options import VariantOptions

if TYPE_CHECKING:
    from squall.sdk._given import Given


def of_options(name: str, given: Mapping[str, Any]) -> tuple[FunctionOptions, Given | None]:
    """Those of `.with_options(…)`, and what of them has ids when the server knows it.

    Raises:
        InvalidError: a value is impossible, or of a later version.
    """
    options = VariantOptions(name, given)
    if options.secrets is None and options.volumes is None:
        return options.record(), None
    from squall.sdk._given import Given  # cold start: options with secrets or volumes only

    return options.record(), Given(options.secrets, options.volumes)


def of_concurrency(name: str, max_inputs: int, target_inputs: int | None) -> FunctionOptions:
    """Those of `.with_concurrency(…)`.

    Raises:
        InvalidError: a value is no number of inputs.
    """
    asked = check_concurrency(f"{name}.with_concurrency()", max_inputs, target_inputs)
    return FunctionOptions(max_inputs=asked.max_inputs, target_inputs=asked.target_inputs or asked.max_inputs)


def of_batching(name: str, max_batch_size: int, wait_ms: int) -> FunctionOptions:
    """Those of `.with_batching(…)`.

    Raises:
        InvalidError: a value is none that a batch can have.
    """
    return FunctionOptions(batching=check_batching(f"{name}.with_batching()", max_batch_size, wait_ms))


def merged(earlier: FunctionOptions | None, later: FunctionOptions) -> FunctionOptions:
    """Both; of what both have, the later."""
    if earlier is None:
        return later
    values = {**_given(earlier), **_given(later)}
    if earlier.resources is not None and later.resources is not None:
        values["resources"] = Resources(**{**_sizes(earlier.resources), **_sizes(later.resources)})
    if earlier.hosting is not None and later.hosting is not None:
        values["hosting"] = Hosting(**{**_said(earlier.hosting), **_said(later.hosting)})
    return FunctionOptions(**values)


def _given(options: FunctionOptions) -> dict[str, Any]:
    return {name: value for name, value in vars(options).items() if value is not None}


def _said(hosting: Hosting) -> dict[str, Any]:
    return {name: value for name, value in vars(hosting).items() if value}


def _sizes(resources: Resources) -> dict[str, Any]:
    """A request goes with its limit, or with there being none."""
    sizes: dict[str, Any] = {}
    if resources.cpu_milli is not None:
        sizes |= {"cpu_milli": resources.cpu_milli, "cpu_limit_milli": resources.cpu_limit_milli}
    if resources.memory_mib is not None:
        sizes |= {"memory_mib": resources.memory_mib, "memory_limit_mib": resources.memory_limit_mib}
    return sizes

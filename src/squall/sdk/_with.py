"""`.with_options(…)` and its like: the same function or class, in containers of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from squall.sdk._parameters import checked

if TYPE_CHECKING:
    from pathlib import PurePosixPath
    from typing import Self

    from squall.protocol.function import FunctionOptions
    from squall.sdk._given import Given
    from squall.sdk.retries import Retries

Pair = float | tuple[float, float]
"""A request, or a request and a limit."""


class With:
    """What a function and a class have in common: others that differ in what their containers get."""

    _name: str

    if TYPE_CHECKING:

        def _with(self, options: FunctionOptions, given: Given | None = None) -> Self:
            """The same with these options, too; of each its own. What is given takes the place of what it had."""

    @checked(".with_options")
    def with_options(
        self,
        *,
        cpu: Pair | None = None,
        memory: Pair | None = None,
        gpu: object = None,
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        retries: int | Retries | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        timeout: int | None = None,
        region: str | Sequence[str] | None = None,
        cloud: str | None = None,
        routing_region: str | None = None,
    ) -> Self:
        """The same in a pool of containers of its own, with these options in place of those it was decorated with.

        What is None stays as it is; `env` is replaced as a whole, and so are `secrets` and `volumes`, with those of the
        app. Further options are added to these.

        Raises:
            InvalidError: a value is impossible, or of a later version of Squall.
        """
        given = dict(locals())
        del given["self"]
        from squall.sdk._variant_options import of_options  # cold start: only where options are given

        return self._with(*of_options(self._name, given))

    @checked(".with_concurrency")
    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Self:
        """The same in a pool of its own, where a container runs several inputs at once; see `squall.concurrent`.

        Raises:
            InvalidError: a value is no number of inputs.
        """
        from squall.sdk._variant_options import of_concurrency  # cold start: as above

        return self._with(of_concurrency(self._name, max_inputs, target_inputs))

    @checked(".with_batching")
    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Self:
        """The same in a pool of its own, with batches, or with batches of another size; see `squall.batched`. Its code
        is given lists there, whether it was decorated for them or not.

        Raises:
            InvalidError: a value is none that a batch can have, or it cannot be given lists.
        """
        from squall.sdk._variant_options import of_batching  # cold start: as above

        return self._with(of_batching(self._name, max_batch_size, wait_ms))

"""A method of a class as `squall run` runs it: parameters of the class and of the method are options alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from squall.cli.annotations import annotations_of, parameters_of
from squall.protocol.records import record

if TYPE_CHECKING:
    from squall.sdk.cls import Cls
    from squall.sdk.function import Function


@record
class ClassMethod:
    """One method of a class of an app."""

    cls: Cls
    method: str

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.cls.service_function.name}.{self.method}"

    @property
    def is_generator(self) -> bool:
        """Whether it yields items."""
        user_class = self.cls.user_class
        return user_class is not None and user_class.methods[self.method].is_generator

    @property
    def is_web(self) -> bool:
        """Whether it answers requests."""
        user_class = self.cls.user_class
        return user_class is not None and user_class.methods[self.method].web is not None

    @property
    def raw_f(self) -> Callable[..., Any]:
        """The method as it was before it was decorated."""
        user_class = self.cls.user_class
        assert user_class is not None
        raw_f: Callable[..., Any] = user_class.raw_methods[self.method]
        return raw_f

    def pooled(self) -> Callable[..., Any]:
        """Something with the signature of both.

        Raises:
            click.UsageError: both have a parameter of one name.
        """
        import inspect  # cold start: classes only

        from squall.protocol.parameters import KINDS  # cold start: as above

        user_class = self.cls.user_class
        assert user_class is not None
        own = parameters_of(self.raw_f)[1:]
        twice = {one.name for one in own} & {one.name for one in user_class.givable}
        if twice:
            raise click.UsageError(
                f"cannot run {self.name} from the command line: its class and it both have a parameter {min(twice)}"
            )
        hints = annotations_of(self.raw_f)
        of_class = []
        for one in user_class.givable:
            field = user_class.fields[one.name]
            default = inspect.Parameter.empty if one.is_required else field.default
            of_class.append(inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default))
            hints[one.name] = KINDS[one.kind]

        def pool(**given: Any) -> None:
            """For its signature only."""

        pool.__doc__ = self.raw_f.__doc__ or self.cls.__doc__
        pool.__signature__ = inspect.Signature(_ordered(own, of_class))  # type: ignore[attr-defined]
        pool.__annotations__ = hints
        pool.__qualname__ = self.name
        return pool

    def with_parameters(self, kwargs: dict[str, Any]) -> tuple[Function[..., Any], dict[str, Any]]:
        """The method of the object that these options mean, and what is left of them for it."""
        user_class = self.cls.user_class
        assert user_class is not None
        names = {one.name for one in user_class.givable}
        made = self.cls(**{name: value for name, value in kwargs.items() if name in names})
        return getattr(made, self.method), {name: value for name, value in kwargs.items() if name not in names}


def _ordered(own: list[Any], of_class: list[Any]) -> list[Any]:
    """Those of the class go where keywords go: after all but what takes any keyword."""
    last = [one for one in own if one.kind is one.VAR_KEYWORD]
    return [*(one for one in own if one not in last), *of_class, *last]

"""What a report calls the methods, and in which order it shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pemt_core.settings.steps import MethodNaming


@dataclass(frozen=True)
class MethodNames:
    """The methods of a report. One that is not in `titles` keeps its name and comes last."""

    titles: Mapping[str, str]  # the first that has results leads: the others are compared with it
    about: Mapping[str, str]  # a clause on each method that needs explaining

    @classmethod
    def of(cls, methods: Mapping[str, MethodNaming]) -> "MethodNames":
        """From the methods of a plan."""
        titles = {name: method.title for name, method in methods.items()}
        return cls(titles, {name: method.about for name, method in methods.items() if method.about})

    def title(self, method: str) -> str:
        """What tables and figures call a method."""
        return self.titles.get(method, method)

    def ordered(self, methods: Iterable[str]) -> list[str]:
        """`methods` once each, in the order of `titles`, then the others by name."""
        places = {method: place for place, method in enumerate(self.titles)}
        return sorted(set(methods), key=lambda method: (places.get(method, len(places)), method))

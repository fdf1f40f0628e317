"""The titles of methods in a report, and their order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pemt_core.settings.steps import MethodNaming


@dataclass(frozen=True)
class MethodNames:
    """The methods of a report. A method that is not in `titles` keeps its name and comes last."""

    titles: Mapping[str, str]  # the first method that has results leads: it is compared with the others
    about: Mapping[str, str]  # a clause on each method that needs an explanation

    @classmethod
    def of(cls, methods: Mapping[str, MethodNaming]) -> "MethodNames":
        """Make the names from the methods of a plan."""
        titles = {name: method.title for name, method in methods.items()}
        return cls(titles, {name: method.about for name, method in methods.items() if method.about})

    def title(self, method: str) -> str:
        """Return the title of a method in tables and figures."""
        return self.titles.get(method, method)

    def ordered(self, methods: Iterable[str]) -> list[str]:
        """Return `methods`, once each, in the order of `titles`, then the others by name."""
        places = {method: place for place, method in enumerate(self.titles)}
        return sorted(set(methods), key=lambda method: (places.get(method, len(places)), method))

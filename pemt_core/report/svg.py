"""Figures as inline SVG in the page's colours and font, with a label for screen readers."""

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from pemt_core.report.palette import VARIABLES

LEFT, RIGHT, BELOW, ABOVE = 0.42, 0.12, 0.28, 0.3  # inches around a panel, for its numbers and title


def svg_file(figure: Figure, name: str) -> bytes:
    """Return a whole figure as a file of its own, in matplotlib's colours, with the same bytes each time."""
    return _saved(figure, name)


def inline_svg(figure: Figure, name: str) -> Markup:
    """Return a whole figure, labelled as in matplotlib; `name` keeps its ids distinct from those of other figures."""
    return _drawn(figure, name, str(figure.get_label()))


def panel_svgs(figure: Figure, name: str) -> list[Markup]:
    """Return each panel of a figure separately, with the panel's label, so that a narrow page can stack them."""
    panels = list(figure.axes)
    around = [*figure.legends, *figure.texts]
    drawn = []
    for artist in [*around, *panels]:
        artist.set_visible(False)
    for place, panel in enumerate(panels):
        panel.set_visible(True)
        inches = panel.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
        box = Bbox.from_extents(inches.x0 - LEFT, inches.y0 - BELOW, inches.x1 + RIGHT, inches.y1 + ABOVE)
        drawn.append(_drawn(figure, f"{name}{place}", str(panel.get_label()), bbox_inches=box))
        panel.set_visible(False)
    for artist in [*around, *panels]:
        artist.set_visible(True)
    return drawn


def _drawn(figure: Figure, name: str, label: str, **options: Any) -> Markup:
    """Return the figure as part of the page."""
    root = ElementTree.fromstring(_saved(figure, name, **options))
    for parent in list(root.iter()):
        for child in [child for child in parent if _bare(child.tag) in ("metadata", "style")]:
            parent.remove(child)  # they contain external links, and a CSS rule for every element of the page
    for element in root.iter():
        element.tag = _bare(element.tag)
        element.attrib = _attributes(element.tag, element.attrib)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "drawn", "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _saved(figure: Figure, name: str, **options: Any) -> bytes:
    """Return the figure as matplotlib draws it, with the same bytes each time."""
    file = BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, **options)
    return file.getvalue()


def _bare(name: str) -> str:
    """Return a tag or an attribute without its namespace, which SVG in HTML does not need."""
    return name.rpartition("}")[2]


def _attributes(tag: str, attributes: Mapping[str, str]) -> dict[str, str]:
    """Return an element's attributes in the page's colours and font, without ids of groups, which figures repeat."""
    bare = {_bare(name): value for name, value in attributes.items() if not (tag == "g" and name == "id")}
    if "style" in bare:
        coloured = re.sub("#[0-9a-f]{6}", lambda found: _variable(found[0]), bare["style"])
        bare["style"] = re.sub("font-family: [^;]*;? ?", "", coloured)
    return bare


def _variable(colour: str) -> str:
    return f"var(--{VARIABLES[colour]})" if colour in VARIABLES else colour

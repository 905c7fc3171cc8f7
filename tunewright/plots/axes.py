"""What all plots share: where to draw, lines and areas that differ without colour, text from the log."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes as Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from tunewright.core.errors import ConfigError
from tunewright.core.text import printable

_DOTS_PER_INCH = 144
_MAX_LINE_CHARS = 44


@dataclass(frozen=True, slots=True)
class LineLook:
    """Color, dashes and marker of one label."""

    color: str
    linestyle: str
    marker: str


# Okabe and Ito's colors (jfly.uni-koeln.de/color), which color-blind readers tell apart; the dashes and
# markers tell the lines apart where there is no color at all.
LOOKS = (
    LineLook("#0072B2", "-", "o"),
    LineLook("#D55E00", "--", "s"),
    LineLook("#000000", ":", "^"),
    LineLook("#009E73", "-.", "D"),
    LineLook("#CC79A7", "-", "v"),
    LineLook("#E69F00", "--", "x"),
)


@dataclass(frozen=True, slots=True)
class AreaLook:
    """Color and hatching of one label; the colors differ in lightness too."""

    color: str
    hatch: str


AREAS = (
    AreaLook("#0072B2", ""),
    AreaLook("#9AD0F5", ""),
    AreaLook("#FFFFFF", "...."),
    AreaLook("#D9D9D9", "////"),
    AreaLook("#F0C05A", "xxxx"),
    AreaLook("#D55E00", "\\\\\\\\"),
    AreaLook("#FFFFFF", "++++"),
    AreaLook("#8C8C8C", "oooo"),
    AreaLook("#F5B7A5", "----"),
    AreaLook("#333333", ""),
    AreaLook("#CC79A7", "||||"),
    AreaLook("#FFFFFF", "****"),
    AreaLook("#B3B300", "//"),
    AreaLook("#FFFFFF", "\\\\"),
)
EDGE = "0.25"


def axes_or_new(ax: Axes | None, *, height_inches: float = 4.2) -> Axes:
    """The given axes, or those of a new figure of pyplot, which notebooks show at the end of a cell."""
    if ax is not None:
        return ax
    # Whoever draws off screen, as the command line does, need not wait for pyplot.
    from matplotlib import pyplot

    _, ax = pyplot.subplots(figsize=(7, height_inches), layout="constrained")
    return ax


def offscreen_axes(*, height_inches: float = 4.2) -> Axes:
    """Axes of a new figure that pyplot does not know: to save from programs, on whatever backend."""
    figure = Figure(figsize=(7, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()


def save(ax: Axes, path: Path) -> None:
    """Write the figure of these axes; the name's ending chooses the format.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        with _quiet_about_glyphs():
            _figure_of(ax).savefig(path, dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise ConfigError(f"cannot draw to '{path}': {error.strerror or error}") from None


def inline_svg(ax: Axes, *, prefix: str = "") -> str:
    """The figure of these axes as an <svg> element, to stand in a page; the same figure gives the same text.

    Text stays text: it can be searched, and is as large as the page's reader wants it.

    Args:
        prefix: of all ids, so that no two pictures of a page share one.
    """
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _quiet_about_glyphs(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "tunewright"}):
        _figure_of(ax).savefig(stream, format="svg", metadata=no_metadata)
    svg = stream.getvalue()
    # Text has no angle brackets of its own: what stands between them are tags.
    return re.sub("<[^>]+>", lambda tag: _prefix_ids(tag.group(), prefix), svg[svg.index("<svg") :].strip())


def _prefix_ids(tag: str, prefix: str) -> str:
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", tag)


def plain(text: str) -> str:
    """Text of the log as a label that is shown as it is: no formulas, no control characters, never hidden."""
    shown = printable(text).replace("\n", r"\n").replace("$", r"\$")
    # A label that begins with an underscore is left out of legends.
    return re.sub(r"^_", " _", shown)


def two_lines(name: str) -> str:
    """A task's name: its operators, and its shapes, if it has any, in a second line."""
    lines = name.split(" ", 1) if " -> " in name else [name]
    return "\n".join(shorten(line, _MAX_LINE_CHARS) for line in lines)


def shorten(text: str, max_chars: int) -> str:
    """The text, or its beginning where it is longer."""
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None, "the axes were taken out of their figure"
    return figure


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    """A name in letters that the font lacks is drawn as boxes; nobody needs a warning for each of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def legend_below(ax: Axes, *, num_columns: int = 1) -> None:
    """A legend under the label of the x axis, where no data can be."""
    below = ax.transAxes + ScaledTranslation(0, -0.5, _figure_of(ax).dpi_scale_trans)
    ax.legend(
        frameon=False,
        fontsize="small",
        ncols=num_columns,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=below,
        borderaxespad=0,
    )


def plain_log_ticks(axis: Axis) -> None:
    """Numbers such as 0.5, 20, 1000 at 1, 2 and 5 of each decade, in place of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def tidy(ax: Axes) -> None:
    """A light grid behind the data, no frame above and to the right."""
    ax.grid(visible=True, color="0.88", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)

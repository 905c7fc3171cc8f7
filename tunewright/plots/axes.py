"""What all plots share: where to draw, and lines that differ without colour."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tunewright.core.errors import ConfigError

_DOTS_PER_INCH = 144


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


def axes_or_new(ax: Axes | None, *, height_inches: float = 4.2) -> Axes:
    """The given axes, or those of a new figure of pyplot, which notebooks show at the end of a cell."""
    if ax is not None:
        return ax
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
    figure = ax.get_figure(root=True)
    assert figure is not None, "the axes were taken out of their figure"
    try:
        figure.savefig(path, dpi=_DOTS_PER_INCH)
    except OSError as error:
        raise ConfigError(f"cannot draw to '{path}': {error.strerror or error}") from None


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

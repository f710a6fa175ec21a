"""A matplotlib figure that shows itself in a notebook and keeps the data it was drawn from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Picture(Figure):
    """Figure built without pyplot, so no global state is touched and no window opens.

    A notebook shows it as the value of a cell; `savefig` writes it; `interactive` returns the same
    picture for Plotly.

    Attributes:
        data: What is drawn, as arrays and plain values.

    Example:
        >>> import numpy as np
        >>> from hpo.drawing.search_data import BudgetPlot
        >>> from hpo.drawing.search_plots import plot_budget
        >>> falling = np.array([3.0, 1.0])
        >>> picture = plot_budget(BudgetPlot(np.array([1.0, 2.0]), falling, falling, "trials"))
        >>> picture.data.unit, picture._repr_png_()[1:4]
        ('trials', b'PNG')
    """

    def __init__(self, data: Any, size: tuple[float, float]) -> None:
        super().__init__(figsize=size, layout="constrained")
        self.data = data

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def interactive(self) -> go.Figure:
        """Return the picture as a Plotly figure, drawn from the same data."""
        from hpo.drawing.interactive import interactive

        return interactive(self.data)

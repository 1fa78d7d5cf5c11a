"""Pictures of flows, samples and training runs: each helper draws on Matplotlib axes and returns them.

None of them calls ``plt.show`` or touches pyplot's state when given axes, so they work without a display::

    plt.style.use(plots.STYLE)
    fig, axes = plt.subplots(1, 2)
    plots.density(flow, axes[0])
    plots.history(report, axes[1])
    plots.save(fig, "flow.svg")
"""

from diffeo.plots.lines import cobweb, history, pushforward
from diffeo.plots.matrices import image_grid, jacobian
from diffeo.plots.planes import density, samples, trajectories, warped_grid
from diffeo.plots.style import COLORS, DARK, STYLE, save

__all__ = [
    "COLORS",
    "DARK",
    "STYLE",
    "cobweb",
    "density",
    "history",
    "image_grid",
    "jacobian",
    "pushforward",
    "samples",
    "save",
    "trajectories",
    "warped_grid",
]

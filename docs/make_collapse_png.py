"""Draws the picture at the top of the README from a finished run: `python docs/make_collapse_png.py RUN`."""

import io
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from collapse_bench.analysis.figures import plot_curves, plot_samples
from collapse_bench.analysis.runs import load_run


def picture(figure: Figure) -> Image.Image:
    """The figure as an image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, bbox_inches="tight", facecolor="white")
    return Image.open(buffer).convert("RGB")


def main() -> None:
    """Writes ``collapse.png`` beside this file."""
    run = load_run(sys.argv[1])
    samples = picture(plot_samples(run))
    figure = plot_curves([run], ["precision", "recall"], num_columns=2, legend=False)
    for axes in figure.axes:
        axes.set_ylim(0, 1.05)  # one scale, so that the two can be compared
    curves = picture(figure)
    curves = curves.resize((samples.width, round(curves.height * samples.width / curves.width)))
    page = Image.new("RGB", (samples.width, samples.height + curves.height), "white")
    page.paste(samples, (0, 0))
    page.paste(curves, (0, samples.height))
    page.save(Path(__file__).with_name("collapse.png"), optimize=True)


if __name__ == "__main__":
    main()

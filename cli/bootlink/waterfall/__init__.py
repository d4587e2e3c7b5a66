"""The waterfall: one boot as rows on a common time axis.

How it works. `stages` turns what the registry stores into `Stage`s. `layout` orders them, finds the idle gaps
between them and places everything on the axis; it knows no terminal. `render` turns that into lines of text or into
rich's. `beside` is the table below: its steps beside those of other boots. All are plain functions: the same boot
always gives the same lines.
"""

from bootlink.waterfall.beside import beside
from bootlink.waterfall.layout import Row, Waterfall, lay_out
from bootlink.waterfall.render import lines, styled
from bootlink.waterfall.stages import Stage, stage_of, stages_of

__all__ = ["Row", "Stage", "Waterfall", "beside", "lay_out", "lines", "stage_of", "stages_of", "styled"]

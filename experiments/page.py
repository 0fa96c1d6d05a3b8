"""A report as one HTML file that needs nothing else: text, tables, figures inside."""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Mapping, Sequence

import pandas as pd

from scaling.figures.style import DPI

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; line-height: 1.25 } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.answer { font-size: 1.15rem; border-left: 4px solid #c2410c; padding: .4rem 0 .4rem 1rem; margin: 1.2rem 0 }
table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0; width: 100% }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
th { font-weight: 600 } figure { margin: 1rem 0 } img { max-width: 100% } figcaption { font-size: .86rem; color: #555 }
pre { background: #f6f6f4; padding: .8rem; font-size: .8rem; overflow-x: auto } li { margin: .2rem 0 }
"""


class Page:
    """Blocks of a page, in order."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._blocks = [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        self._blocks.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str, kind: str = "") -> None:
        self._blocks.append(f'<p class="{kind}">{html.escape(text)}</p>' if kind else f"<p>{html.escape(text)}</p>")

    def items(self, texts: Sequence[str]) -> None:
        self._blocks.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>")

    def preformatted(self, text: str) -> None:
        self._blocks.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, table: pd.DataFrame) -> None:
        self._blocks.append(table.to_html(index=False, border=0, justify="left", na_rep="none"))

    def figure(self, png: bytes, caption: str) -> None:
        source = base64.b64encode(png).decode()
        text, width = html.escape(caption), int(struct.unpack(">I", png[16:20])[0] * 96 / DPI)
        self._blocks.append(f'<figure><img alt="{text}" width="{width}" src="data:image/png;base64,{source}">'
                            f"<figcaption>{text}</figcaption></figure>")

    def end(self, not_identified: Sequence[str], costs: Sequence[pd.DataFrame], method: Sequence[str],
            fits: Mapping[str, str] | None = None) -> None:
        """What the report of a study ends with: what its design cannot tell, its fits in full, cost and method."""
        self.heading("What is not identified")
        self.items(not_identified)
        if fits is not None:
            self.heading("Fits")
            for name, text in fits.items():
                self.preformatted(f"{name}\n{text}")
        self.heading("Cost and method")
        for table in costs:
            self.table(table)
        self.items(method)

    def text(self) -> str:
        """The whole file."""
        head = f'<meta charset="utf-8"><title>{html.escape(self._title)}</title><style>{STYLE}</style>'
        body = "\n".join(self._blocks)
        return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'

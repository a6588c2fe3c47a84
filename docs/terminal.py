"""Draw what a run said on the terminal as docs/terminal.svg.

    python docs/terminal.py RUN [FIRST]

RUN is a run directory; of its epochs the FIRST (default 6) and the last are shown.
"""

import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = "$ make train"
HEADS = "epoch"


def shortened(lines, first):
    """Return the lines with the epochs between the `first` and the last left out."""
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [HEADS]) + 1
    end = next(i for i in range(start, len(lines)) if not lines[i].strip())
    if end - start <= first + 1:
        return lines
    return [*lines[: start + first], "  ...", *lines[end - 1 :]]


def main(run, first=6):
    lines = shortened(Path(run, "stdout.log").read_text().splitlines(), int(first))
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=max(map(len, lines)) + 1, file=nowhere)
        console.print(Text(COMMAND, style="bold"))
        for line in lines:
            console.print(Text(line), soft_wrap=True)
        svg = console.export_svg(title="mpiconsensus", unique_id="run")
    # A picture that fetches nothing: the reader's own monospaced font, without the web font that rich names.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    (Path(__file__).parent / "terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

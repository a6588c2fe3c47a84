"""Pictures of many runs: every line is told from every other, and the legend stands beside the panels."""

from itertools import combinations

import pytest

pytest.importorskip("matplotlib")

from analysis import consensus, curves, pictures


def tables(count, graphs=6):
    """Return [(label, rows)] of so many runs, on so many graphs in turn."""
    made = []
    for i in range(count):
        own = {"run": f"q{i}", "graph": f"graph:{i % graphs}", "lambda2_modulus": 0.5, "rounds_since_first": None}
        rows = []
        for k in range(1, 21):
            row = own | {"epoch": k, "step": 10 * k, "seconds": float(k), "bytes_sent_vertex": 1e4 * k, "consensus_distance": 1 / (k + i)}
            for name in ("accuracy", "train_loss"):
                row |= {f"{name}_{what}": factor / (k + i) for what, factor in (("mean", 1), ("min", 0.9), ("max", 1.1))}
            rows.append(row)
        made.append((f"runs/of/a/sweep/q{i} (graph:{i % graphs})", rows))
    return made


@pytest.mark.parametrize("groups", [None, 1, 2, 6, 7, 42])
@pytest.mark.parametrize("count", [1, 3, 7, 8, 12, 42, 49])
def test_any_two_styles_differ_in_colour_or_in_dashes_and_marker(count, groups):
    styles = pictures.styles(count, groups and [i % groups for i in range(count)])
    assert len(styles) == count
    for one, other in combinations(styles, 2):
        assert one[0] != other[0] or (one[1] != other[1] and one[2] != other[2])


def test_beyond_that_the_three_together_differ():
    assert len(set(pictures.styles(300))) == 300


def test_many_lines_of_a_group_share_a_colour_that_no_other_group_has():
    groups = [f"graph:{i % 6}" for i in range(42)]
    colours = [style[0] for style in pictures.styles(42, groups)]
    assert len(set(zip(groups, colours, strict=True))) == len(set(colours)) == 6
    few = [style[0] for style in pictures.styles(7, groups[:7])]
    assert len(set(few)) == 7, "few lines have a colour each"


@pytest.mark.parametrize("draw", [curves.draw, consensus.draw])
@pytest.mark.parametrize("count", [3, 7, 8, 12, 42])
def test_the_legend_is_whole_and_covers_no_panel(draw, count):
    figure = draw(tables(count))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, page = legend.get_window_extent(), figure.bbox
    assert {text.get_text() for text in legend.get_texts()} >= {label for label, _ in tables(count)}
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    for axis in figure.axes:
        panel = axis.get_tightbbox()
        assert not box.overlaps(panel) and panel.x1 <= page.x1
        assert panel.width > 1.2 * figure.dpi and panel.height > 2 * figure.dpi  # inches
        assert box.x0 > panel.x1 if count > 7 else box.y1 < panel.y0
    assert figure.get_size_inches()[1] < 5


@pytest.mark.parametrize("count", [2, 12])
def test_markers_of_lines_one_above_the_other_stand_apart(count):
    figure = curves.draw(tables(count))
    firsts = {line.get_markevery()[0] for line in figure.axes[2].lines}
    assert len(firsts) == 2, "20 points: every second has a marker"

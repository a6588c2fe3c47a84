"""Numbers from a formula of their position: training.start.

A formula is arithmetic on numbers, j and d, in float64, element by element: whatever it says takes time in proportion to its
length and d.
"""

import ast

import numpy as np

from mpiconsensus.errors import UserError

LONGEST = 1000  # characters
BINARY = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.FloorDiv: np.floor_divide, ast.Mod: np.mod,
    ast.Pow: np.power,
}  # fmt: skip
UNARY = {ast.UAdd: np.positive, ast.USub: np.negative}
FUNCTIONS = {"sin": np.sin, "cos": np.cos, "sqrt": np.sqrt}
ALLOWED = "a formula takes numbers, j, d, + - * / // % **, parentheses, sin, cos and sqrt, for example (37 * j % 113) / d"


def values(key, text, d):
    """Return (d,) float64: the formula `text` at j = 1, ..., d.

    % and // are Python's: the remainder has the divisor's sign. Raise UserError that names `key` for anything but such a formula,
    and where a value is not a finite number.
    """

    def refuse(what):
        raise UserError(f"{key} = {text[:60]!r}{'...' * (len(text) > 60)}: {what}; {ALLOWED}.")

    if len(text) > LONGEST:
        refuse(f"{len(text)} characters, at most {LONGEST} are allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        with np.errstate(all="ignore"):
            found = _value(tree.body, {"j": np.arange(1, d + 1, dtype=np.float64), "d": np.float64(d)}, refuse)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        refuse(f"it cannot be read ({getattr(error, 'msg', None) or type(error).__name__})")
    return np.broadcast_to(found, d).copy()


def _value(node, names, refuse):
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return _finite(BINARY[type(node.op)](_value(node.left, names, refuse), _value(node.right, names, refuse)), node, refuse)
    if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](_value(node.operand, names, refuse))
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        try:
            return _finite(np.float64(node.value), node, refuse)
        except OverflowError:
            refuse("it holds a number beyond float64")
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and len(node.args) == 1 and not node.keywords:
        return _finite(FUNCTIONS[node.func.id](_value(node.args[0], names, refuse)), node, refuse)
    refuse(f"{ast.unparse(node)[:40]!r} is not allowed")


def _finite(values, node, refuse):
    """Return values, or refuse: what is not a number must not become one again, as in (0 / 0) ** 0."""
    finite = np.isfinite(np.atleast_1d(values))
    if not finite.all():
        at = int(np.argmin(finite))
        where = f"at j = {at + 1} " if np.ndim(values) else ""
        refuse(f"{where}{ast.unparse(node)[:40]} is {np.atleast_1d(values)[at]:g}, not a finite number")
    return values

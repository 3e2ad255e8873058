"""Runge-Kutta methods as tables of exact coefficients, each with its source."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction as F

import numpy as np

from odec.errors import ArgumentError, nearest

ROUNDING = 1e-14  # what sums of coefficients that were given as doubles may be off by


@dataclass(frozen=True, eq=False)
class ButcherTableau:
    """An embedded explicit Runge-Kutta pair with dense output.

    k_i = f(t + c_i h, y + h sum_j a_ij k_j),  y1 = y + h sum_i b_i k_i,  error = h sum_i b_error_i k_i,
    y(t + theta h) = y + h sum_i b_i(theta) k_i,  b_i(theta) = sum_m dense[i][m] theta^(m+1)

    order : of y1; error_order : of the other solution of the pair
    Coefficients may be given as fractions, text ('1/3'), or floats.

    Raises
    ------
    ArgumentError : lengths that do not fit, or sums that cannot be
    """

    name: str
    order: int
    error_order: int
    c: tuple[F, ...]
    a: tuple[tuple[F, ...], ...]
    b: tuple[F, ...]
    b_error: tuple[F, ...]
    dense: tuple[tuple[F, ...], ...]
    dense_order: int
    source: str
    family: str = "explicit Runge-Kutta"

    def __post_init__(self):
        for field in ("c", "b", "b_error"):
            object.__setattr__(self, field, self._row(field, getattr(self, field)))
        for field in ("a", "dense"):
            rows = tuple(self._row(f"row {i} of {field}", row) for i, row in enumerate(getattr(self, field)))
            object.__setattr__(self, field, rows)
        self._check_sizes()
        self._check_sums()

    def _row(self, what, entries):
        """Entries as exact fractions: a float is the binary fraction that it is, '1/3' is a third."""
        row = []
        for entry in entries:
            try:
                row.append(entry if type(entry) is F else F(entry.item() if isinstance(entry, np.generic) else entry))
            except (TypeError, ValueError, OverflowError, ZeroDivisionError):
                self._refuse(f"{what} has {entry!r}; finite numbers, fractions or text such as '1/3' are needed")
        return tuple(row)

    def _refuse(self, found):
        raise ArgumentError(f"tableau {self.name}: {found}.")

    def _check_sizes(self):
        s = len(self.b)
        if s == 0:
            self._refuse("b is empty, so there are no stages; a method needs at least one")
        for what in ("c", "a", "b_error", "dense"):
            count = len(getattr(self, what))
            if count != s:
                self._refuse(f"{what} has {count} entries; it needs one for each of the {s} stages that b has")
        for i, row in enumerate(self.a):
            if len(row) != i:
                self._refuse(
                    f"row {i} of a has {len(row)} entries; an explicit method has {i}, one for each earlier stage"
                )
        degree = len(self.dense[0])
        for i, row in enumerate(self.dense):
            if len(row) != degree or degree == 0:
                self._refuse(
                    f"row {i} of dense has {len(row)} entries; each needs one for each power of theta, {degree or 1}"
                )
        for what, least in (("order", 1), ("error_order", 0), ("dense_order", 1)):
            value = getattr(self, what)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                self._refuse(f"{what} is {value!r}; an integer of at least {least} is needed")

    def _check_sums(self):
        self._check_sum("b", self.b, F(1), "")
        self._check_sum("b_error", self.b_error, F(0), "")
        for i in range(self.stages):
            self._check_sum(f"row {i} of a", self.a[i], self.c[i], ", its c")
            self._check_sum(f"row {i} of dense", self.dense[i], self.b[i], ", its b")

    def _check_sum(self, what, row, wanted, which):
        if abs(sum(row) - wanted) > ROUNDING:
            self._refuse(f"{what} sums to {float(sum(row))!r}; it must sum to {float(wanted):g}{which}")

    @property
    def stages(self):
        """How many stages a step has."""
        return len(self.b)

    @functools.cached_property
    def fsal(self):
        """Whether the last stage is the first of the next step."""
        return self.a[-1] == self.b[:-1] and self.b[-1] == 0 and float(self.c[-1]) == 1.0

    @functools.cached_property
    def dense_matrix(self):
        """Coefficients of the dense output as floats, (stages of a step, degree); a slope at the end of
        the step that no b uses has a row of zeros."""
        rows = np.zeros((self.stages + (not self.fsal), len(self.dense[0])))
        rows[: self.stages] = [[float(x) for x in row] for row in self.dense]
        return rows


def _exact(rows):
    """Rows of fractions from text: '1/5 3.25e-2' means 1/5 and 325/10000 exactly."""
    return tuple(tuple(F(x) for x in row.split()) for row in rows)


TABLEAUS: dict[str, ButcherTableau] = {}


def _add(**fields):
    tableau = ButcherTableau(**fields)
    TABLEAUS[tableau.name] = tableau
    return tableau


def tableau_named(name):
    """The tableau of a method's name, or the tableau itself."""
    if isinstance(name, ButcherTableau):
        return name
    known = TABLEAUS.get("tsit5" if name == "auto" else name) if isinstance(name, str) else None
    if known is None:
        raise ArgumentError(
            f"method {name!r} is not known{nearest(name, TABLEAUS)} "
            f"It is one of auto, {', '.join(TABLEAUS)}, or a ButcherTableau."
        )
    return known


# ---- Dormand and Prince 1980 ------------------------------------------------------------------------------

_b = _exact(["35/384 0 500/1113 125/192 -2187/6784 11/84 0"])[0]
DOPRI5 = _add(
    name="dopri5", order=5, error_order=4,
    c=_exact(["0 1/5 3/10 4/5 8/9 1 1"])[0],
    a=_exact([
        "", "1/5", "3/40 9/40", "44/45 -56/15 32/9", "19372/6561 -25360/2187 64448/6561 -212/729",
        "9017/3168 -355/33 46732/5247 49/176 -5103/18656", "35/384 0 500/1113 125/192 -2187/6784 11/84",
    ]),
    b=_b,
    b_error=_exact(["71/57600 0 -71/16695 71/1920 -17253/339200 22/525 -1/40"])[0],
    dense=_exact([
        "1 -8048581381/2820520608 8663915743/2820520608 -12715105075/11282082432",
        "0 0 0 0",
        "0 131558114200/32700410799 -68118460800/10900136933 87487479700/32700410799",
        "0 -1754552775/470086768 14199869525/1410260304 -10690763975/1880347072",
        "0 127303824393/49829197408 -318862633887/49829197408 701980252875/199316789632",
        "0 -282668133/205662961 2019193451/616988883 -1453857185/822651844",
        "0 40617522/29380423 -110615467/29380423 69997945/29380423",
    ]),
    dense_order=4,
    source="Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19; dense output: Shampine, Math. Comp. 46 (1986) 135",
)  # fmt: skip

# ---- Tsitouras 2011 -----------------------------------------------------------------------------------------
# The paper gives 16 digits; these are the 40 leading digits of the same method's refined coefficients as
# the Julia differential equations suite tabulates them, and the order conditions hold to 1e-36. c follows
# from the row sums. The interpolant is known to 16 digits only.

_a = _exact([
    "",
    "0.161",
    "-0.008480655492356988544426874250230774675121177 0.335480655492356988544426874250230774675121177",
    "2.897153057105493432130432594192938764924887288 -6.359448489975074843148159912383825625952700647 "
    "4.362295432869581411017727318190886861027813360",
    "5.325864828439256604428877920840511317836476253 -11.748883564062827877747170339785772961887441783 "
    "7.495539342889836208304604784564358155658679162 -0.092495066361755249256502079332071916113499834",
    "5.861455442946420028659251486982647890394337666 -12.920969317847109291706118681783359395417807520 "
    "8.159367898576158643180400794539253485181918321 -0.071584973281400997224530542525829738691272131 "
    "-0.028269050394068382909003057212712241467176336",
    "0.096460766818065229518167313165128763337119952 0.01 0.479889650414499574775249532290596519913040462 "
    "1.379008574103741893192274821856872770756462643 -3.290069515436080679901047585711363850115683291 "
    "2.324710524099773982415355918398765796109060233",
])  # fmt: skip
TSIT5 = _add(
    name="tsit5", order=5, error_order=4, c=tuple(sum(row, F(0)) for row in _a), a=_a, b=(*_a[-1], F(0)),
    b_error=_exact([
        "0.001780011052225771443378550607539534775944679 0.000816434459656746903223636063354686240186254 "
        "-0.007880878010261996010314727672526304238628734 0.144711007173262907537165147972635116720922712 "
        "-0.582357165452555225019937610652042179426078124 0.458082105929186946661636518832554297442804728 "
        "-1/66",
    ])[0],
    dense=_exact([
        "1 -2.763706197274825911 2.913255461821912744 -1.053088497729021600",
        "0 0.1317 -0.2234 0.1017",
        "0 3.930296236894751529 -5.941033872131504735 2.490627285651252793",
        "0 -12.411077166933676984 30.338188630282321598 -16.548102889244902720",
        "0 37.509313416511039195 -88.178904894766401101 47.379521962819281220",
        "0 -27.896526289197287806 65.091894674793671526 -34.870657861496609740",
        "0 1.5 -4 2.5",
    ]),
    dense_order=4,
    source="Tsitouras, Comput. Math. Appl. 62 (2011) 770",
)  # fmt: skip

"""The methods by name: odec's own tables, read when first asked for, and those that users add."""

from __future__ import annotations

import importlib
from typing import Any

from odec.errors import ArgumentError, nearest
from odec.steppers.low_storage import LowStorageTableau
from odec.steppers.symplectic import SymplecticTableau
from odec.steppers.tableaus import ButcherTableau
from odec.steppers.taylor import TaylorMethod

DEFAULT = "tsit5"
# name -> the module of odec.steppers.tables whose function of that name makes the record
HOMES = {
    "euler": "classical", "midpoint": "classical", "heun": "classical", "ralston": "classical", "rk4": "classical",
    "rk38": "classical", "heun_euler": "classical", "fehlberg2": "fehlberg", "bs3": "bogacki_shampine",
    "rkf45": "fehlberg", "cash_karp": "cash_karp", "dopri5": "dormand_prince", "tsit5": "tsitouras",
    "owren_zennaro3": "owren_zennaro", "owren_zennaro4": "owren_zennaro", "owren_zennaro5": "owren_zennaro",
    "tanaka_yamashita7": "tanaka_yamashita", "dop853": "dormand_prince", "vern6": "verner", "vern7": "verner",
    "vern8": "verner", "vern9": "verner", "ssprk22": "strong_stability", "ssprk33": "strong_stability",
    "ssprk43": "strong_stability", "carpenter_kennedy54": "low_storage", "semi_implicit_euler": "symplectic",
    "velocity_verlet": "symplectic", "blanes_moan4": "symplectic", "blanes_moan6": "symplectic",
    "taylor": "series",
}  # fmt: skip
KINDS = (ButcherTableau, LowStorageTableau, SymplecticTableau, TaylorMethod)
_known = {}


def method_named(name):
    """The record of a method's name, or the record itself.

    Raises
    ------
    ArgumentError : no such method
    """
    if isinstance(name, KINDS):
        return name
    wanted = DEFAULT if name == "auto" else name
    if isinstance(wanted, str):
        if wanted in _known:
            return _known[wanted]
        if wanted in HOMES:
            table = importlib.import_module(f"odec.steppers.tables.{HOMES[wanted]}")
            return _known.setdefault(wanted, getattr(table, wanted)())
    names = [*HOMES, *(n for n in _known if n not in HOMES)]
    raise ArgumentError(
        f"method {name!r} is not known{nearest(name, names)} It is one of auto, {', '.join(names)}, or a record such "
        "as a ButcherTableau."
    )


def method_at(name, rtol) -> Any:
    """As method_named, of the order that suits a relative tolerance where that sets it."""
    record = method_named(name)
    return record.at(rtol) if isinstance(record, TaylorMethod) else record


def methods():
    """The known methods, as records with name, order, error_order, stages, family, dense_order, source."""
    return [method_named(name) for name in (*HOMES, *(n for n in _known if n not in HOMES))]


def add_method(record):
    """Make a method of one's own known by its name, to `odec.solve`, `odec.methods` and the tests over methods.

    Raises
    ------
    ArgumentError : not a record of a method, or a name that is taken
    """
    if not isinstance(record, KINDS):
        raise ArgumentError(f"add_method: {type(record).__name__} is not a method; give a ButcherTableau.")
    if record.name in HOMES or record.name in _known or record.name == "auto":
        raise ArgumentError(f"add_method: the name {record.name!r} is taken; give the method a name of its own.")
    _known[record.name] = record

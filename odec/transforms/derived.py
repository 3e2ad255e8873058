"""What is made once of a Function, and kept as long as the Function is."""

from __future__ import annotations

import weakref

_derived: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def once(function, key, make):
    """make(), made once for a Function and a key; what is made must not refer to the Function itself."""
    known = _derived.setdefault(function, {})
    if key not in known:
        known[key] = make()
    return known[key]


def known(function, key):
    """What was made of a Function for a key, or None."""
    return _derived.get(function, {}).get(key)

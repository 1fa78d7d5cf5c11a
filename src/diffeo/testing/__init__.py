"""The conformance suite: each ``check_...`` holds a kind to the whole contract of its noun.

Write a kind, then::

    from diffeo.testing import check_bijection

    def test_my_bijection():
        check_bijection(MyBijection(3))

A breach is an ``AssertionError`` that names the kind, the rule, the item of the contract
(``docs/architecture.md``) and the numbers. Kinds are held to what their ``Traits`` declare.
"""

from diffeo.testing.bases import check_base
from diffeo.testing.bijections import check_bijection
from diffeo.testing.encodings import check_encoding
from diffeo.testing.flows import check_flow
from diffeo.testing.points import randomize_
from diffeo.testing.scalar import check_elementwise

__all__ = [
    "check_base",
    "check_bijection",
    "check_elementwise",
    "check_encoding",
    "check_flow",
    "randomize_",
]

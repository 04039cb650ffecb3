from __future__ import annotations

import pytest

from sshr_deploy.figures import in_digits


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (2376.4, 3, "2380"),
        (999.6, 3, "1000"),
        (120.0, 2, "120"),
        (24.06, 3, "24.1"),
        (-15432.0, 4, "-15430"),
        (0.0123, 2, "0.012"),
        (0.0, 3, "0"),
    ],
)
def test_figures_are_no_powers_of_ten(value: float, digits: int, text: str) -> None:
    assert in_digits(value, digits) == text

"""Options of a request against the record of an entry."""

import pytest

from cab.errors import OptionError
from cab.info import AttentionInfo, Grade, Option
from cab.options import resolve_options
from cab.patterns import Pattern

INFO = AttentionInfo(
    id="mine",
    title="Mine",
    formula="",
    patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL},
    time="L",
    memory="L",
    options=(
        Option("ridge", 1.0, "", positive=True),
        Option("rank", 0, "", least=0),
        Option("solver", "auto", "", choices=("auto", "exact")),
    ),
)


def test_options_are_cast_and_laid_over_the_defaults():
    resolved = resolve_options(INFO, {"ridge": "0.5", "solver": "exact"})
    assert resolved == {"ridge": 0.5, "rank": 0, "solver": "exact"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ridge": "0"}, "'ridge' of attention 'mine' must be positive"),
        ({"ridge": "inf"}, "must be positive and finite"),
        ({"ridge": "nan"}, "must be positive and finite"),
        ({"rank": "-1"}, "'rank' of attention 'mine' is at least 0"),
        ({"solver": "lu"}, "one of auto, exact, not 'lu'"),
        ({"rigde": "1"}, "has no option 'rigde'"),
    ],
)
def test_what_an_option_cannot_take_is_refused(given, message):
    with pytest.raises(OptionError, match=message):
        resolve_options(INFO, given)

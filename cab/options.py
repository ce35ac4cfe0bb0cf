"""What an info record takes: options, presets and patterns (no torch here)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cab.errors import OptionError, UnsupportedPatternError
from cab.info import AttentionInfo, Grade, Option, OptionValue
from cab.patterns import Pattern


def resolve_options(
    info: AttentionInfo, options: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """Defaults of the entry with ``options`` laid over them, each cast to its default's type.

    Raises:
        OptionError: the entry has no such option, or the value does not fit its type or range.
    """
    resolved = info.defaults()
    for name, value in options.items():
        if name not in resolved:
            has = f"it has {', '.join(resolved)}" if resolved else "it has none"
            raise OptionError(f"attention {info.id!r} has no option {name!r}; {has}")
        resolved[name] = _cast(info, name, value, resolved[name])
    for option in info.options:
        _check_range(info, option, resolved[option.name])
    return resolved


def preset_options(info: AttentionInfo, name: str) -> dict[str, OptionValue]:
    """What a preset of the entry sets; options that it does not name keep their defaults.

    Raises:
        OptionError: the entry has no such preset.
    """
    if name not in info.presets:
        has = f"it has {', '.join(info.presets)}" if info.presets else "it has none"
        raise OptionError(f"attention {info.id!r} has no preset {name!r}; {has}")
    return dict(info.presets[name])


def require_within_reason(info: AttentionInfo, options: Mapping[str, OptionValue]) -> None:
    """A number that no machine could serve ends here, and not in an allocation of terabytes.

    Args:
        info: of the entry.
        options: all of its options.

    Raises:
        OptionError: a whole number beyond what the option takes, or one that is not finite.
    """
    for option in info.options:
        value = options[option.name]
        which = f"option {option.name!r} of attention {info.id!r}"
        if isinstance(value, bool | str):
            continue
        if isinstance(value, int) and abs(value) > option.most:
            raise OptionError(f"{which} is at most {option.most}")
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"{which} must be finite, not {value!r}")


def _check_range(info: AttentionInfo, option: Option, value: OptionValue) -> None:
    which = f"option {option.name!r} of attention {info.id!r}"
    if option.choices and value not in option.choices:
        raise OptionError(f"{which} is one of {', '.join(option.choices)}, not {value!r}")
    if option.positive and not (isinstance(value, int | float) and 0 < value < float("inf")):
        raise OptionError(f"{which} must be positive and finite, not {value!r}")
    if option.least is not None and not (isinstance(value, int | float) and value >= option.least):
        raise OptionError(f"{which} is at least {option.least:g}, not {value!r}")


def _cast(info: AttentionInfo, name: str, value: OptionValue, default: OptionValue) -> OptionValue:
    wanted = type(default)
    if isinstance(value, str) and wanted is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if value.lower() in words:
            return words[value.lower()]
    elif wanted is bool:
        if isinstance(value, bool):
            return value
    elif not isinstance(value, bool):
        try:
            cast = wanted(value)
        except ValueError:
            pass
        else:
            if not isinstance(value, float) or cast == value:
                return cast
    raise OptionError(
        f"option {name!r} of attention {info.id!r} takes {wanted.__name__}, not {value!r}"
    )


def require_pattern(info: AttentionInfo, pattern: Pattern) -> Grade:
    """The grade of a claimed pattern.

    Raises:
        UnsupportedPatternError: the entry does not claim it.
    """
    grade = info.grade(pattern)
    if grade is None:
        why = info.absent.get(pattern, "")
        raise UnsupportedPatternError(
            f"attention {info.id!r} does not support {pattern}; it supports "
            f"{', '.join(info.patterns)}{f' ({why})' if why else ''}"
        )
    return grade

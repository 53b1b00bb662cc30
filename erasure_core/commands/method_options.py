"""The options of the command ``erase`` that methods have: they are read as the method that is chosen has them."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from ..arguments import MOST_SEED, OR_NONE, as_written
from ..limits import limits_of
from ..methods import METHODS
from ..methods.method import Method
from .options import Parser, filled, number, option, whole
from .request import having, taking

DEFAULT = "rece"
NAMES: Mapping[str, tuple[str, ...]] = {
    "steps": ("max_train_steps", "steps"),
    "batch_size": ("train_batch_size", "batch_size"),
    "sampling_steps": ("num_inference_steps", "sampling_steps"),
    "guidance": ("guidance_scale", "guidance"),
    "rank": ("rank", "network_dim"),
}
"""Settings that diffusers or kohya-ss's scripts call otherwise: the option's name, and other names that it takes."""
OPTION = "--method"


def as_name(text: str) -> str:
    """The name of a method, which may have a hyphen, as in sentences."""
    return text.replace("-", "_")


def chosen_method(arguments: Sequence[str]) -> Method:
    """The method that a command line chooses, or the one that is used unless another is chosen."""
    name = DEFAULT
    for word, following in itertools.pairwise([*arguments, ""]):
        if word == OPTION:
            name = following
        elif word.startswith(f"{OPTION}="):
            name = word.partition("=")[2]
    return METHODS.get(as_name(name), METHODS[DEFAULT])


def add_method_options(command: Parser, arguments: Sequence[str]) -> None:
    """Add an option for each setting and input of the method that ``arguments`` choose, and for those of others.

    Where two methods use one name, it is the option of the chosen method.
    """
    method = chosen_method(arguments)
    others = [one for one in METHODS.values() if one is not method]
    added: set[str] = set()
    for add, owner in [(_add_setting, method), (_add_inputs, method), *((_add_inputs, other) for other in others)]:
        add(command, owner, added)
    for other in others:
        for one in fields(other.settings):
            if one.name not in added:
                added.add(one.name)
                _add_foreign(command, other, one)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What is set in place of the preset's: settings of the method, and of others, for a request to refuse."""
    own = METHODS[args.method]
    names = [one.name for one in fields(own.settings)]
    names += [one.name for method in METHODS.values() for one in fields(method.settings) if not taking(one.name)]
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def inputs_of(args: argparse.Namespace) -> dict[str, Any]:
    """What was given beside settings, to the method or to others."""
    own = [one.name for one in fields(METHODS[args.method].settings)]
    inputs = [one.name for method in METHODS.values() for one in _input_fields(method)]
    return {name: getattr(args, name) for name in inputs if name not in own}


def _input_fields(method: Method) -> Iterator[Field]:
    for kind in method.takes:
        yield from fields(kind)


def _add_setting(command: Parser, method: Method, added: set[str]) -> None:
    """Options without ranges: the settings check themselves, with the preset's."""
    reads: Mapping[str, dict[str, Any]] = {
        "bool": {"action": argparse.BooleanOptionalAction}, "int": {"type": whole()}, "float": {"type": number()},
    }  # fmt: skip
    for one in fields(method.settings):
        added.add(one.name)
        told = _help_of(one, method)
        command.add_argument(*_names(one.name), **reads.get(as_written(one.type), {}), **_dest(one.name), help=told)


def _add_foreign(command: Parser, method: Method, one: Field) -> None:
    """An option of other methods, with a value or without, which a request refuses by naming them."""
    flags = [*_names(one.name)]
    if as_written(one.type) == "bool":
        flags.append(option(f"no_{one.name}"))
    told = f"{_help_of(one, method)}. Of {', '.join(having(one.name))}, which --method chooses."
    command.add_argument(*flags, nargs="?", const=True, metavar=one.name.upper(), **_dest(one.name), help=told)


def _add_inputs(command: Parser, method: Method, added: set[str]) -> None:
    for one in _input_fields(method):
        if one.name not in added:
            added.add(one.name)
            told = f"{', '.join(taking(one.name))}: {limits_of(one).help}"
            told += (
                f"; default: {one.default}" if isinstance(one.default, str | int) and one.default is not False else ""
            )
            command.add_argument(*_names(one.name), **_dest(one.name), **_reading(one), help=told)


def _names(setting: str) -> tuple[str, ...]:
    return (option(NAMES.get(setting, (setting,))[0]),)


def _dest(setting: str) -> dict[str, Any]:
    """The name under which an option is kept, and its other names."""
    return {"dest": setting, "earlier": tuple(map(option, NAMES.get(setting, ("",))[1:]))}


def _help_of(one: Field, method: Method) -> str:
    """What a setting of a method means, its range, and its default."""
    presets = _presets_of(method, one.name)
    return f"{limits_of(one).help} {_range_of(one)}; default: that of the preset, {presets}"


def _range_of(one: Field) -> str:
    """The range of a setting in words, with a capital letter."""
    kind = as_written(one.type)
    if kind == "bool":
        return "On or off"
    words = limits_of(one).words(kind == "int")
    return words[:1].upper() + words[1:]


def _presets_of(method: Method, setting: str) -> str:
    """The value of a setting in each preset of a method: ``0.3 (general, several), 0 (published)``."""
    values: dict[str, list[str]] = {}
    for name, preset in method.presets.items():
        value = getattr(preset, setting)
        values.setdefault(f"{value:g}" if isinstance(value, float) else str(value), []).append(name)
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in values.items())


def _reading(one: Field) -> dict[str, Any]:
    """How argparse reads an input, by its type and its range."""
    limits, kind = limits_of(one), as_written(one.type).removesuffix(OR_NONE)
    if limits.choices:
        return {"choices": limits.choices}
    if kind == "bool":
        return {"action": "store_true"}
    if kind.startswith("Sequence[str]"):
        return {"action": "append", "default": [], "metavar": "TEXT"}
    reads: Mapping[str, Callable[[str], Any]] = {
        "int": whole(_whole(limits.least), _whole(limits.most)),
        "float": number(limits.least, limits.most, limits.above),
        "Seed": whole(0, MOST_SEED),
    }
    return {"type": reads.get(kind, filled)}


def _whole(end: float | None) -> int | None:
    return None if end is None else int(end)

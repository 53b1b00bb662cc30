"""Options are typed whole, in their ranges, and errors spell them as they were typed."""

from __future__ import annotations

import argparse
import re

import pytest

from erasure_core.commands.main import _parser
from erasure_core.commands.options import Parser, Reader, as_path, as_typed, filled, number, whole

NAMES = ["sampling_steps", "learning_rate", "steps", "ridge", "regularization", "exactly", "guidance", "images", "rank"]
NAMES += ["erase_scale", "name_only", "pictures", "amplification"]


@pytest.mark.parametrize(
    ("sentence", "typed"),
    [
        ("sampling_steps must be at least 1, got 0", "--sampling-steps must be at least 1, got 0"),
        ("steps must be from 1 to 999, got 0", "--steps must be from 1 to 999, got 0"),
        ("images: a.png is not a file", "--images: a.png is not a file"),
        ("not finite; raise ridge or regularization", "not finite; raise --ridge or --regularization"),
        ("raise erase_scale or steps, list fewer (exactly)", "raise --erase-scale or --steps, list fewer (--exactly)"),
        ("it left; lower guidance, or raise steps", "it left; lower --guidance, or raise --steps"),
        ("or set name_only to True", "or set --name-only to True"),
        ("rank must be at least 1; leave rank out", "--rank must be at least 1; leave --rank out"),
    ],
)  # fmt: skip
def test_settings_are_spelled_as_options(sentence: str, typed: str) -> None:
    assert as_typed(sentence, NAMES) == typed


@pytest.mark.parametrize(
    "sentence",
    [
        "learning_rate/steps.txt: No such file or directory",
        "/home/me/learning_rate/a.safetensors is already there",
        "learning_rate.safetensors holds statistics, not an erasure",
        "after 10 steps the loss rose; the model draws 1 to 1000 pictures itself",
        "the concept 'learning_rate' is empty",
        "--images: the model draws none",
        "the steps and images of all",
    ],
)
def test_words_that_are_no_settings_stay(sentence: str) -> None:
    assert as_typed(sentence, NAMES) == sentence == as_typed(sentence, [])


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (whole(1), "0", "must be a whole number of at least 1, got '0'"),
        (whole(1), "1.5", "must be a whole number of at least 1, got '1.5'"),
        (whole(0, 9), "10", "must be a whole number from 0 to 9, got '10'"),
        (whole(), "x", "must be a whole number, got 'x'"),
        (whole(1), "9" * 5000, "must be a whole number of at least 1, got '99"),
        (number(0), "nan", "must be a number of at least 0, got 'nan'"),
        (number(0), "inf", "must be a number of at least 0, got 'inf'"),
        (number(0, 100), "-1", "must be a number from 0 to 100, got '-1'"),
        (number(above=0), "0", "must be a number above 0, got '0'"),
        (number(most=3), "4", "must be a number of at most 3, got '4'"),
        (as_path, "", "must not be empty"),
        (filled, " ", "must not be empty"),
    ],
)
def test_values_out_of_range(kind, text: str, told: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        kind(text)
    assert str(caught.value).startswith(told)


def test_values_in_range() -> None:
    assert whole(1)("1") == 1 and whole()("-3") == -3 and number(0, 1)("1") == 1.0 and str(as_path("a/b")) == "a/b"
    assert number()("inf") == float("inf")


@pytest.fixture
def parser() -> Parser:
    parser = Parser(prog="p")
    command = parser.add_subparsers(required=True).add_parser("draw")
    command.add_argument("--overwrite", action="store_true")
    command.add_argument("--out", required=True)
    command.add_argument("--steps", type=whole(1))
    return parser


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "a", "--overwrit"], "there is no option --overwrit; did you mean --overwrite?"),
        (["--ouput", "a"], "there is no option --ouput; did you mean --out?"),
        (["--over", "--out", "a"], "there is no option --over; did you mean --overwrite?"),
        (["--o", "a"], "there is no option --o; did you mean --overwrite or --out?"),
        (["--oversteer=3", "--out", "a"], "there is no option --oversteer; did you mean --overwrite?"),
        (["--colour", "red", "--out", "a"], "there is no option --colour"),
        (["--out", "a", "--steps", "0"], "--steps must be a whole number of at least 1, got '0'"),
        (["--steps"], "--steps: expected one argument"),
        (["--out", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_options_are_never_guessed(parser: Parser, capsys, arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["draw", *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    prog = "p" if told.startswith("unrecognized") else "p draw"
    assert caught.value.code == 2 and line == f"error: {told}; see {prog} --help"


def test_what_is_no_option_is_a_value(parser: Parser) -> None:
    assert parser.parse_args(["draw", "--out=--over"]).out == "--over"
    assert parser.parse_args(["draw", "--out", "-- a b"]).out == "-- a b"


@pytest.fixture
def renamed() -> Parser:
    parser = Parser(prog="p")
    command = parser.add_subparsers(required=True).add_parser("draw")
    command.add_argument(
        "--num-inference-steps", earlier=("--steps",), dest="steps", type=whole(1, 9), default=3, help="x"
    )
    command.add_argument("--prompt")
    return parser


@pytest.mark.parametrize("name", ["--num-inference-steps", "--num_inference_steps", "--steps"])
def test_options_are_taken_by_earlier_names_and_with_underscores(renamed: Parser, name: str) -> None:
    """And sentences spell them as they were typed."""
    for words in ([name, "5"], [f"{name}=5"]):
        args = renamed.parse_args(["draw", *words])
        assert args.steps == 5
        typed = "--steps" if name == "--steps" else "--num-inference-steps"
        assert as_typed("steps must be even, got 5", args.spelling) == f"{typed} must be even, got 5"


def test_an_earlier_name_is_in_its_errors_and_not_in_the_help(renamed: Parser, capsys) -> None:
    for name in ("--steps", "--num-inference-steps"):
        with pytest.raises(SystemExit):
            renamed.parse_args(["draw", name, "10"])
        error = capsys.readouterr().err
        assert error == f"error: {name} must be a whole number from 1 to 9, got '10'; see p draw --help\n"
    with pytest.raises(SystemExit):
        renamed.parse_args(["draw", "--help"])
    shown = capsys.readouterr().out
    assert "x (a whole number from 1 to 9; default 3)" in shown and "--steps" not in shown
    assert renamed.parse_args(["draw", "--prompt", "a --steps b"]).prompt == "a --steps b"


def commands() -> dict[str, Parser]:
    (choices,) = [one.choices for one in _parser()._actions if isinstance(one.choices, dict)]
    for name, command in choices.items():
        command._extend and command._extend(command, [name])
    return choices


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_the_help_says_what_every_option_means(name: str, command: Parser) -> None:
    """A number's range, and a default where there is one."""
    for action in command._actions:
        assert action.help, f"{name} {action.option_strings or action.dest}"
        if isinstance(action.type, Reader) and action.type.ends:
            assert action.type.range in action.help, f"{name} {action.option_strings}"
        if action.option_strings and type(action.default) in (int, float):
            assert re.search(rf"default {action.default:g}\b", action.help), f"{name} {action.option_strings}"


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_one_name_means_one_thing(name: str, command: Parser) -> None:
    """Numbers of steps and of pictures are named as diffusers and kohya-ss's scripts name them."""
    names = {one for action in command._actions for one in action.option_strings}
    assert not names & {"--steps", "--sampling-steps", "--pictures", "--guidance", "--negative", "--batch-size"}
    images = [action for action in command._actions if "--images" in action.option_strings]
    assert all(isinstance(action.help, str) and "folder" in action.help for action in images)
    if "--model" in names:
        assert {"--device", "--dtype"} <= names

"""What users type, right and wrong."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasure_core import Concept, ConceptError, common_concepts, parse_concepts
from erasure_core.concepts.parse import as_concepts, kept_prompts, name_of, parse_prompts
from erasure_core.concepts.prompt_length import too_long


def test_lines_blank_lines_and_comments() -> None:
    text = "\ufeff# mine\n\n  van gogh -> art \r\n\tcat\n  # cat\nhot-dog  ->\ta - b # mine\nc# \t #\n#5\n"
    assert parse_concepts(text) == [
        Concept("van gogh", "art"),
        Concept("cat"),
        Concept("hot-dog", "a - b"),
        Concept("c#"),
    ]
    assert as_concepts(["van gogh # a painter"]) == as_concepts("van gogh # a painter") == [Concept("van gogh")]


def test_bytes_are_read_as_utf8() -> None:
    assert parse_concepts("Café -> x".encode()) == [Concept("Café", "x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no concept is named in concepts"),
        (" \n\t\n# only a comment", "no concept is named"),
        (None, "concepts is text, not None"),
        ("cat\ndog ->", "line 2 of concepts, 'dog ->', names nothing after '->'"),
        ("cat\n-> dog", "line 2 of concepts, '-> dog', names no concept"),
        ("cat -> dog -> bird", "the concept 'cat -> dog -> bird' has more than one '->'"),
        ("cat -> Cat", "^the concept 'cat -> Cat' maps a concept to itself; name something else after '->'$"),
        ("van  gogh -> van gogh", "maps a concept to itself"),
        ("cat -> a cat", "maps a concept to itself"),
        ("cats -> the cat's", "maps a concept to itself"),
        ("cat\ndog\ncat  -> bird", "line 3 of concepts, 'cat  -> bird', lists 'cat' a second time"),
        ("cat -> dog\ndog", "^'cat -> dog' draws 'dog', which is to be erased too; name something else after '->', or"),
        ("dog\ncat -> a Dog", "'cat -> a Dog' draws 'a Dog', which is to be erased too"),
        ("cat -> dog\ndogs -> bird", "'cat -> dog' draws 'dog', which is to be erased too"),
        ("cat -> dog\ndog -> cat", "which is to be erased too"),
        ("cat => dog", "the concept 'cat => dog' has the unknown separator '=>'; write 'cat -> dog'"),
        ("cat->dog", "the concept 'cat->dog' needs a space on both sides of '->'; write 'cat -> dog'"),
        ("cat ->dog", "needs a space on both sides of '->'; write 'cat -> dog'"),
        ("cat-> dog", "needs a space on both sides of '->'; write 'cat -> dog'"),
        ("cat->", "needs a space on both sides of '->'; write '->' with a space on both sides"),
        ("cat --> dog", "unknown separator '-->'"),
        ("cat ->> dog", "unknown separator '->>'"),
        ("cat —> dog", "unknown separator '—>'"),
        ("cat → dog", "unknown separator '→'"),
        ("cat→dog", "unknown separator '→'; write 'cat -> dog'"),
        ("cat ➜ dog", "unknown separator '➜'"),
        ("cat ＞ dog", "unknown separator '＞'"),
        ("cat＞dog", "unknown separator '＞'"),
        ("cat > dog", "unknown separator '>'"),
        ("cat>dog", "unknown separator '>'"),
        ("cat = dog", "unknown separator '='; write 'cat -> dog'"),
        ("cat | dog", r"unknown separator '\|'; write 'cat -> dog' for what to draw instead, or one name a line$"),
        ("cat - > dog", "unknown separator '- >'; write 'cat -> dog'$"),
        ("cat -  - > dog", "unknown separator '- - >'; write 'cat -> dog'$"),
        ("cat = > dog", "unknown separator '= >'; write 'cat -> dog'$"),
        ("cat <- dog", "'<-', which points back; write what to erase first, 'cat -> dog' or 'dog -> cat'$"),
        ("cat < - dog", "'< -', which points back; .* 'cat -> dog' or 'dog -> cat'$"),
        ("cat<-dog", "'<-', which points back; .* 'cat -> dog' or 'dog -> cat'$"),
        ("cat <= dog", "'<=', which points back"),
        ("cat ← dog", "'←', which points back"),
        ("cat <-> dog", "'<->', which points back; .* 'cat -> dog' or 'dog -> cat'$"),
        ("cat >> dog", "unknown separator '>>'"),
        ("cat => a dog -> bird", "unknown separator '=>'"),
        ("cat -> dog => bird", "unknown separator '=>'"),
        ("(dog:1.3)", r"sets a weight, '\(dog:1.3\)', and a name has none; write 'dog'$"),
        ("a ((big dog:.5))", "sets a weight, .* write 'a .*big dog'$"),
        ("[dog : -2] -> cat", "sets a weight"),
        ("<lora:dog_v1:0.8>", "loads a file, '<lora:dog_v1:0.8>', and is no name"),
        ("(cat:1.3", r"sets a weight, '\(cat:1.3', and a name has none; write 'cat'$"),
        ("((big cat:1.3)", "sets a weight, .* write 'big cat'$"),
        ("cat:1.3)", r"sets a weight, 'cat:1.3\)', and a name has none; write 'cat'$"),
        ("[cat:dog:0.5]", r"edits a prompt, '\[cat:dog:0.5\]', and is no name; write 'cat -> dog' for what to draw"),
        ("[cat::0.5]", r"edits a prompt, '\[cat::0.5\]', and is no name; write one name a line$"),
        ("a [red:blue:10] cat", "edits a prompt"),
        ("{cat|dog}", r"chooses, '\{cat\|dog\}', and is no name; write one name a line$"),
        ("a [cat|dog] here", "chooses, "),
        ("cat AND dog", "joins prompts with 'AND', and a name is one text; write one name a line, or 'cat and dog' if"),
        ("cat BREAK dog", "joins prompts with 'BREAK'"),
        ("cat,", "^the concept 'cat,' has ',' beside it, as in a list; write 'cat'$"),
        ("bird\n ,cat", "^line 2 of concepts, ',cat', has ',' beside it, as in a list; write 'cat'$"),
        ("cat ;", "has ';' beside it, as in a list; write 'cat'$"),
        ("cat, dog,", "^the concept 'cat, dog,' has ',' beside it, as in a list; write one name a line$"),
        ("cat -> dog,", "has ',' beside it, as in a list; write 'cat -> dog'$"),
        ("cat, -> dog", "has ',' beside it, as in a list; write 'cat'$"),
        ("cat  - -> dog", "has '-' beside it, as in a list; write 'cat'$"),
        ("- cat", "begins with '-', as in a list; write 'cat'$"),
        ("* cat -> dog", r"begins with '\*', as in a list; write 'cat -> dog'$"),
        ("• cat", "begins with '•', as in a list"),
        ("•cat", "begins with '•', as in a list; write 'cat'$"),
        ("2) cat", r"begins with '2\)', as in a list; write 'cat'$"),
        ('"cat"', "has quotes around it, which text encoders read too; write 'cat'$"),
        ("'cat'", "has quotes around it, .* write 'cat'$"),
        ("‘cat’", "has quotes around it, .* write 'cat'$"),
        ("„cat“", "has quotes around it, .* write 'cat'$"),
        ("`cat`", "has quotes around it, .* write 'cat'$"),
        ('"cat" -> "dog"', "has quotes around it, .* write 'cat'$"),
        ('"cat -> dog"', "has quotes around it, .* write 'cat -> dog'$"),
        ('- "cat",', "as in a list; write 'cat'$"),
        ('"klimt', "begins with '\"', which nothing closes; write 'klimt'$"),
        (b"cat\xff\xfe", "concepts is not UTF-8 text"),
        ("caf\ufffd", "the concept|line 1 of concepts, 'caf\ufffd', has '\ufffd', which is not text"),
        ("c\x00at", r"line 1 of concepts, 'c\\x00at', has '\\x00', which is not text; take it out"),
        ("cat\x1b[31m", r"has '\\x1b', which is not text"),
        ("cat\nhalf an emoji \ud83d", r"line 2 of concepts, 'half an emoji \\ud83d', has '\\ud83d', which is not text"),
    ],
)
def test_lines_that_cannot_be_used(text: str | bytes, message: str) -> None:
    with pytest.raises(ConceptError, match=message):
        parse_concepts(text)


def test_errors_name_the_file() -> None:
    with pytest.raises(ConceptError, match="line 2 of list.txt, 'dog ->', names nothing"):
        parse_concepts("cat\ndog ->", "list.txt")
    with pytest.raises(ConceptError, match="no concept is named in list.txt"):
        parse_concepts("# none", "list.txt")


@pytest.mark.parametrize("text", ["{} => y", "- {}", '"{}"', "{},", "{} AND y", "(y{}:1.3)", "[{}:y:1]", "[{}|y]"])
def test_a_long_line_is_quoted_in_short(text: str) -> None:
    with pytest.raises(ConceptError) as caught:
        parse_concepts(text.format("x" * 100_000))
    assert len(str(caught.value)) < 400


def test_a_thousand_lines() -> None:
    lines = [f"concept {number} -> thing" for number in range(1000)]
    assert len(parse_concepts("\n".join(lines))) == len(as_concepts(lines)) == 1000
    with pytest.raises(ConceptError, match="line 1001 .*'concept 7'"):
        parse_concepts("\n".join([*lines, "concept 7"]))


@pytest.mark.parametrize(
    "name",
    [
        "<cat-toy>", ">_<", "|_|", "tag #1", "<3", "i <3 cats", "=^.^=", "(>_<)", "a - b", "e – f", "c#",
        "<toy>cat", "spider-man", "star wars: episode 4", "<|x|> y", "\U0001f498", "-",
    ],
)  # fmt: skip
def test_names_that_are_no_arrows(name: str) -> None:
    wanted = [Concept(name, "thing")]
    assert parse_concepts(f"{name} -> thing") == parse_concepts(str(*wanted)) == wanted
    assert as_concepts([name, "#1 fan"]) == [Concept(name), Concept("#1 fan")]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("cat, dog", "the concept 'cat, dog' looks like a list with ',' and is read as one name; write one"),
        ("cat;dog", "looks like a list with ';'"),
        ("cat、dog", "looks like a list with '、'"),
        ("cat|dog", r"looks like a list with '\|'"),
        ("cat\tdog", "looks like a list with a tab"),
        ("cat=dog", "has '=' and is read as one name; write 'cat -> dog'"),
        ("cat_ears", "has '_', which text encoders read too; write 'cat ears' if prompts do"),
        ("cat_", "has '_'"),
        ("bird -> cat_ears", "has '_'"),
        ("(dog)", "has brackets, which are text in a name"),
        ("link (zelda)", "has brackets"),
        ("[dog]", "has brackets"),
        ("(dog", "has brackets"),
        ("dog))", "has brackets"),
        ("1. cat", r"begins with '1\.', as in a list, and is read so; write 'cat' if it is one"),
        ("cat:1.3", "ends in ':1.3', which is text in a name; write 'cat' if it is a weight"),
        ("dog\ncat -> a dog in a hat", "^'cat -> a dog in a hat' draws what names 'dog', which is to be erased too"),
        ("cat\na, b\nc\nd, e", r"line 2 of concepts, 'a, b' looks like a list .* \(so do 1 more\)"),
    ],
)
def test_names_that_may_be_meant_otherwise_are_told_of(text: str, warning: str, caplog) -> None:
    assert parse_concepts(text)
    (told,) = caplog.messages
    assert re.search(warning, told) and told.endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "cat", "tag #1", r"link \(zelda\)", "mr. robot", "cat's", ">_<", "a\t->\tb", "f(x", "TOM AND JERRY", "and",
        "3:10 to yuma", "-", ":)", ";)", "rock 'n' roll", "'n sync", "ladies'", '12" record', 'a "b"', "16:9", "BREAK",
        "7.1 surround", "''", '"', "star wars: episode 4", "prison BREAK", "c++", "<3", "a - b",
    ],
)  # fmt: skip
def test_plain_names_are_not_told_of(text: str, caplog) -> None:
    assert parse_concepts(text) and not caplog.messages


def test_lines_are_split_when_asked() -> None:
    cat_and_dog = [Concept("cat"), Concept("dog", "fox")]
    assert parse_concepts("cat, dog -> fox ,", separator=",") == parse_concepts("cat; dog -> fox", separator=";")
    assert parse_concepts("cat\t\tdog -> fox # mine\n", separator="\t") == cat_and_dog
    with pytest.raises(ConceptError, match="concepts lists 'cat' a second time"):
        parse_concepts("cat, cat", separator=",")


def test_a_name_is_spelled_in_one_way() -> None:
    assert Concept(" van \t gogh", r"mario \(series\)") == Concept("van gogh", "mario (series)")
    assert Concept("cafe\u0301") == Concept("café")
    with pytest.raises(ConceptError, match="'van gogh' is listed twice"):
        as_concepts(["van  gogh", "van gogh"])
    with pytest.raises(ConceptError, match="maps a concept to itself"):
        Concept("Van  Gogh", "van gogh ")


@pytest.mark.parametrize(
    "text",
    [
        "cat\u200b", "\ufeffcat", "c\u00adat", "cat\u200d", "\u200ccat", "cat\ufe0f", "\u2060cat \u200e", "cat\u3164",
        "cat\u200d\ufe0f", "\u200b \ncat", "1\n#\ufe0f\ncat",
        "ca\U000e0074t", "dog\n\ufeff# mine\ncat", "dog\n\u200b# mine\ncat", "\u2066cat\u2069",
    ],
)  # fmt: skip
def test_what_is_invisible_is_no_part_of_a_name(text: str) -> None:
    assert parse_concepts(text)[-1] == Concept(text.split("\n")[-1]) == Concept("cat")
    assert parse_prompts(text)[-1] == "cat"
    with pytest.raises(ConceptError, match="a second time"):
        parse_concepts(f"cat\n{text}")
    with pytest.raises(ConceptError, match="listed twice"):
        as_concepts(["cat", text.split("\n")[-1]])


def test_an_arrow_beside_what_is_invisible() -> None:
    wanted = [Concept("cat", "dog")]
    assert parse_concepts("cat\u200b \u200b-\u200b> dog\ufeff") == as_concepts(["cat ->\u200b dog"]) == wanted
    with pytest.raises(ConceptError, match="no concept is named"):
        parse_concepts("\u200b\n\ufeff")


@pytest.mark.parametrize("name", ["❤️", "👩‍🎨", "1️⃣", "می‌خواهم", "क्‍ष", "🏴\U000e0067\U000e0062\U000e007f"])
def test_what_is_invisible_and_changes_what_is_seen_stays(name: str) -> None:
    assert Concept(name).name == name and parse_concepts(f"{name} -> art") == [Concept(name, "art")]


def test_capitals_may_be_listed_both() -> None:
    """Some text encoders tell them apart; which, is known where one is at hand."""
    assert parse_concepts("Van Gogh\nvan gogh") == as_concepts(["Van Gogh", "van gogh"])


@pytest.mark.parametrize("name", ["", "  "])
def test_a_concept_needs_a_name(name: str) -> None:
    with pytest.raises(ConceptError, match="needs a name"):
        Concept(name)


def test_a_concept_is_text() -> None:
    with pytest.raises(ConceptError, match="is text, not 3"):
        Concept(3)
    with pytest.raises(ConceptError, match="is text, not 3"):
        as_concepts([3])


@pytest.mark.parametrize("name", ["half \ud83d", "c\x00at", "\x1b[31m", "caf\ufffd"])
def test_a_name_has_no_character_that_is_not_text(name: str) -> None:
    for ask in (lambda: Concept(name), lambda: Concept("cat", name), lambda: as_concepts([name])):
        with pytest.raises(ConceptError, match="which is not text") as caught:
            ask()
        assert str(caught.value).encode().decode().replace("\ufffd", "").isprintable()


@given(st.text())
def test_any_text_gives_concepts_or_a_readable_error(text: str) -> None:
    try:
        concepts = parse_concepts(text)
    except ConceptError as error:
        assert str(error)
    else:
        assert parse_concepts("\n".join(map(str, concepts))) == concepts


@given(st.binary(max_size=40))
def test_any_bytes_give_concepts_or_a_readable_error(data: bytes) -> None:
    try:
        assert parse_concepts(data)
    except ConceptError as error:
        assert str(error)


def test_concepts_from_what_a_caller_has() -> None:
    cat = Concept("cat")
    assert as_concepts("cat") == as_concepts(cat) == as_concepts([cat]) == as_concepts(["cat"]) == [cat]
    with pytest.raises(ConceptError, match="is empty"):
        as_concepts([])
    with pytest.raises(ConceptError, match="'cat' is listed twice"):
        as_concepts([cat, "dog", " cat"])


def test_the_name_of_one_concept() -> None:
    assert name_of(" van  gogh -> art ") == name_of("van gogh # mine") == "van gogh"
    for text, message in (("cat\ndog", "--concept has 2 lines"), ("cat => dog", "separator '=>'"), (" ", "no concept")):
        with pytest.raises(ConceptError, match=message):
            name_of(text, "--concept")


def test_prompts_are_listed_once() -> None:
    text = "a dog\n\n# no\na dog # mine\n a -> b \nroom #5"
    assert parse_prompts(text) == parse_prompts(text.encode()) == ["a dog", "a -> b", "room #5"]


def test_a_bad_prompt_names_the_input_that_it_came_by() -> None:
    with pytest.raises(ConceptError, match="line 2 of preserve, 'caf\ufffd', has '\ufffd', which is not text"):
        parse_prompts("lion\ncaf\ufffd", "preserve")


def test_what_is_erased_is_not_preserved_by_default() -> None:
    kept = common_concepts([Concept("an oil painting in the style of van gogh")])
    assert kept[0] == "" and "cat" in kept
    assert not {"painting", "oil painting", "in the style of van gogh"} & set(kept)
    assert "in the style of monet" in kept


def test_what_is_drawn_instead_is_not_erased_itself() -> None:
    for concepts in (["cat -> dog", "dog"], [Concept("dog"), Concept("cat", "the dogs")]):
        with pytest.raises(ConceptError, match="^'cat -> .*' draws '.*dogs?', which is to be erased too"):
            as_concepts(concepts)
    assert parse_concepts("cat -> dog\nbird -> dog\nhot dog") and as_concepts(["van gogh painting -> painting"])


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("dog -> fox", "says what to draw instead; write only what to leave alone$"),
        ("dog->fox", "says what to draw instead"),
        ("dog => fox", "says what to draw instead"),
        ("dog → fox", "says what to draw instead"),
        ("(dog:1.3)", "sets a weight"),
        ("dog AND fox", "joins prompts"),
        ("- dog", "begins with '-', as in a list; write 'dog'"),
        ('"dog"', "has quotes around it"),
    ],
)
def test_prompts_that_cannot_be_kept(prompt: str, problem: str) -> None:
    with pytest.raises(ConceptError, match=f"^--preserve lists '.*', which {problem}"):
        kept_prompts(["bird", prompt], "--preserve")


def test_prompts_that_are_kept() -> None:
    prompts = ["", "a dog, a cat,", "a | b", "2 > 1", "i <3 dogs", "a dog - a cat", "x = y"]
    assert kept_prompts(prompts, "preserve") == prompts and kept_prompts("dog", "preserve") == ["dog"]


@pytest.mark.parametrize("concepts", [{"cat": "dog"}, ["cat\ndog"], ["bird", "cat\r\ndog"]])
def test_what_is_no_list_of_concepts(concepts: object) -> None:
    with pytest.raises(ConceptError, match="list of concepts, not|has several lines; list each concept by itself"):
        as_concepts(concepts)


def test_a_prompt_that_is_too_long_is_quoted_with_both_lengths() -> None:
    sentence = f"'{'cat ' * 14}c...' is 76 tokens long, the text encoder takes 75; shorten it"
    assert str(too_long("cat " * 76, 76, 75)) == sentence

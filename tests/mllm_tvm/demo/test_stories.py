"""The story generator: repeatable, varied, and correct English as far as a machine can tell."""

import itertools
import re
import subprocess
import sys

import pytest

from mllm_tvm.demo import plots
from mllm_tvm.demo.stories import article, plural, stories

COUNT = 2000


@pytest.fixture(scope="module")
def many() -> list[str]:
    return list(stories(seed=99, count=COUNT))


def test_a_seed_gives_the_same_stories() -> None:
    assert list(stories(5, 20)) == list(stories(5, 20))
    assert list(stories(5, 20)) != list(stories(6, 20))


def test_another_process_gives_the_same_stories() -> None:
    """Nothing depends on the order of a set or on a hash seed."""
    program = "from mllm_tvm.demo.stories import stories; print('|'.join(stories(3, 5)))"
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.rstrip("\n") == "|".join(stories(3, 5))


def test_no_story_comes_twice(many: list[str]) -> None:
    assert len(set(many)) == COUNT


def test_vocabulary_is_wide(many: list[str]) -> None:
    words = {word.lower() for story in many for word in re.findall(r"[A-Za-z'-]+", story)}
    assert len(words) >= 1500


def test_length(many: list[str]) -> None:
    lengths = sorted(len(story.split()) for story in many)
    assert lengths[0] >= 80
    assert lengths[COUNT * 9 // 10] <= 220


def test_every_plot_is_told() -> None:
    names = [plot.name for plot in plots.PLOTS]
    assert len(names) == len(set(names)) >= 10


def test_openings_vary(many: list[str]) -> None:
    for opening in ("Once upon a time", "One day", "There was once", "Long ago"):
        assert sum(story.startswith(opening) for story in many) >= 20, opening


def test_three_paragraphs(many: list[str]) -> None:
    assert all(len(story.split("\n\n")) == 3 for story in many)


@pytest.mark.parametrize(
    "fault",
    [
        r"  ",
        r" [.,!?]",
        r"[\[\]{}<>~|_\0]",
        r"\.\.|,,|,\.",
        r"\b[Aa] [aeio]\w+",
        r"\b[Aa]n (?!hour|honest|honour)[^aeiou\W]\w*",
        r"\b(\w+) \1\b",
        r"[.] [a-z]",
        r"\n[a-z]",
        r" $|^ | \n|\n ",
    ],
)
def test_no_fault_in(many: list[str], fault: str) -> None:
    found = [match[0] for story in many for match in re.finditer(fault, story)]
    assert found == []


def test_quotation_marks_are_balanced(many: list[str]) -> None:
    for story in many:
        for paragraph in story.split("\n\n"):
            assert paragraph.count('"') % 2 == 0, paragraph


def test_sentences_end(many: list[str]) -> None:
    assert all(re.search(r'[.!?]"?$', paragraph) for story in many for paragraph in story.split("\n\n"))


def test_what_is_lost_is_found(many: list[str]) -> None:
    pattern = re.compile(r"I have lost my (?!way)(?:\w+ )*?(\w+)[.!]")
    lost = [match for story in many if (match := pattern.search(story))]
    assert lost
    for match in lost:
        assert match[1] in match.string[match.end() :]


def test_articles_and_plurals() -> None:
    cases = {"apple": "an apple", "honest fox": "an honest fox", "unicorn": "a unicorn", "kite": "a kite"}
    assert {word: article(word) for word in cases} == cases
    assert article("unhappy duck") == "an unhappy duck"
    nouns = ("cherry", "birch", "potato", "oak", "key", "leek")
    assert [plural(noun) for noun in nouns] == ["cherries", "birches", "potatoes", "oaks", "keys", "leeks"]


def test_command_prints_stories() -> None:
    command = [sys.executable, "-m", "mllm_tvm.demo.stories", "--seed", "4", "--count", "2"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.rstrip("\n").split("\n\n* * *\n\n") == list(itertools.islice(stories(4, 2), 2))

"""A seeded generator of short English stories: the only data the embedded model is trained on.

A story is a plot of `plots` whose templates are filled from `lexicon`. What is bound for the whole story (who
it is about, what is lost, where it happens) stays the same from the first sentence to the last; the rest is
drawn afresh. Only the standard library is used, and a seed gives the same stories everywhere.

Run as ``python -m mllm_tvm.demo.stories --seed 1 --count 3`` to read some.
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mllm_tvm.demo import lexicon, plots

_PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}


def plural(noun: str) -> str:
    """The plural of a regular English noun."""
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(?:s|x|ch|sh|[^aeiou]o)$", noun) else "s")


_FRESH: dict[str, Sequence[str]] = {
    "body": lexicon.BODY,
    "colour": lexicon.COLOURS,
    "day": lexicon.DAYS,
    "daypart": lexicon.DAY_PARTS,
    "delight": lexicon.DELIGHT,
    "drinks": lexicon.DRINKS,
    "exclaim": lexicon.EXCLAIM,
    "flowers": lexicon.FLOWERS,
    "foods": lexicon.FOODS,
    "fruit": lexicon.FRUITS,
    "furniture": lexicon.FURNITURE,
    "game": lexicon.GAMES,
    "glad": lexicon.GLAD,
    "ground": lexicon.GROUND,
    "hiding": lexicon.HIDING_PLACES,
    "look_day": lexicon.MORNING_LOOKS,
    "lookword": lexicon.GLEAMS,
    "noise": lexicon.NOISES,
    "number": lexicon.NUMBERS,
    "ordinal": lexicon.ORDINALS,
    "parts": lexicon.PARTS,
    "people": lexicon.PEOPLE,
    "quickly": lexicon.QUICKLY,
    "room": lexicon.ROOMS,
    "sad": lexicon.SAD,
    "scared": lexicon.SCARED,
    "season": lexicon.SEASONS,
    "sky": lexicon.SKY_LINES,
    "slowly": lexicon.SLOWLY,
    "smell": lexicon.SMELLS,
    "solids": lexicon.SOLID_FOODS,
    "sound": lexicon.SOUNDS,
    "steed": lexicon.STEEDS,
    "stormsky": lexicon.STORM_SKIES,
    "tiny": lexicon.TINY_ANIMALS,
    "tired": lexicon.TIRED,
    "tool": lexicon.TOOLS,
    "townkind": lexicon.TOWN_KINDS,
    "townlook": lexicon.TOWN_LOOKS,
    "tree": lexicon.TREES,
    "trees": tuple(plural(tree) for tree in lexicon.TREES),
    "vegetable": lexicon.VEGETABLES,
    "vegetables": tuple(plural(vegetable) for vegetable in lexicon.VEGETABLES),
}

# Verbs of speech for statements and for questions, and manners of speaking, by the mood of the line.
_SAY: dict[str, Sequence[str]] = {
    "": ("said", "said", "said", "said", "murmured"),
    "ask": ("said", "remarked"),
    "glad": ("said", "said", "laughed"),
    "proud": ("said", "boasted", "declared", "announced"),
    "sad": ("said", "said", "sighed", "sobbed", "murmured"),
    "scared": ("said", "whispered", "stammered"),
    "shy": ("said", "whispered", "mumbled"),
}
_ASK: dict[str, Sequence[str]] = {
    "": ("asked",),
    "ask": ("asked", "asked", "inquired"),
    "sad": ("asked", "sobbed", "sighed"),
    "scared": ("asked", "whispered"),
    "shy": ("asked", "whispered"),
}
_CRY = ("cried", "called", "shouted", "exclaimed")
_ANSWER = ("said", "answered", "replied")
_MANNERS: dict[str, Sequence[str]] = {
    "": (),
    "ask": ("kindly", "gently", "curiously", "in surprise", "politely"),
    "glad": ("happily", "with a smile", "cheerfully", "with shining eyes", "merrily", "joyfully"),
    "proud": ("proudly", "loudly", "with a grin", "boldly"),
    "sad": ("sadly", "unhappily", "in a small voice", "with tears in {his} eyes", "quietly"),
    "scared": ("in a trembling voice", "nervously", "breathlessly", "in fright", "with wide eyes"),
    "shy": ("shyly", "softly", "in a low voice", "quietly", "timidly"),
}

# Things, and what they may be made of.
_HARD = (lexicon.THINGS, lexicon.MATERIALS)
_SOFT = (lexicon.SOFT_TREASURES, lexicon.CLOTHS)
_BREAKABLE = (lexicon.BREAKABLES, lexicon.CHINA)

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_FRESH_WORD = re.compile(r"<([a-z_]+)>")
_SLOT = re.compile(r"\{([a-z0-9_.]+)\}")
_SPEECH = re.compile(r"~([a-z])(?:\.([a-z]+))?: (.*?)~")
_ARTICLE = re.compile(r"\b([Aa])n? (?=([a-z]+))", re.IGNORECASE)
_SENTENCE_START = re.compile(r'(^|[.!?]"? |\n)([a-z])')
# Marks, until the text is polished, a quotation after which the sentence goes on: "Why?" asked Tom.
_SAME_SENTENCE = "\0"
_LONG_U = re.compile(r"(?:uni(?!n)|use|one|eu)", re.IGNORECASE)
_MUTE_H = re.compile(r"(?:hour|honest|honour)", re.IGNORECASE)


def article(phrase: str) -> str:
    """`phrase` with the indefinite article its first sound asks for."""
    vowel = phrase[0].lower() in "aeiou" and not _LONG_U.match(phrase)
    return ("an " if vowel or _MUTE_H.match(phrase) else "a ") + phrase


@dataclass
class _Story:
    """What is bound in one story, and what has been used up."""

    rng: random.Random
    slots: dict[str, str] = field(default_factory=dict)
    used: dict[str, set[str]] = field(default_factory=dict)
    friend_known: bool = False
    when: Sequence[str] = plots.MORNINGS

    def fresh(self, kind: str) -> str:
        """A word of a list that this story has not used yet, as long as there are any."""
        used = self.used.setdefault(kind, set())
        word = self.rng.choice([word for word in _FRESH[kind] if word not in used] or _FRESH[kind])
        used.add(word)
        return word


def _bind_person(story: _Story, role: str, she: bool, taken: set[str]) -> str:
    """Binds name, description and pronouns of the hero or the friend; returns what kind of being it is."""
    rng = story.rng
    sort = rng.choices(("child", "animal", "worker"), weights=(45, 42, 13))[0]
    names: Sequence[str] = lexicon.GIRL_NAMES if she else lexicon.BOY_NAMES
    trait = rng.choice(lexicon.CHILD_TRAITS)
    size = rng.choice(lexicon.SIZES)
    home: Sequence[str] = lexicon.HOUSES
    if sort == "child":
        kind = "girl" if she else "boy"
    elif sort == "animal":
        kind = rng.choice(lexicon.SMALL_ANIMALS)
        names = lexicon.ANIMAL_NAMES_SHE if she else lexicon.ANIMAL_NAMES_HE
        home = lexicon.DENS
    else:
        kind = rng.choice(lexicon.JOBS)
        size = "young"
    described = rng.choice((f"{trait} {kind}", f"{trait} {size} {kind}", f"{size} {kind}"))
    story.slots |= {
        role: rng.choice([name for name in names if name not in taken]),
        f"{role}.a": article(described),
        f"{role}.n": f"the {kind}",
        f"{role}.kind": kind,
        f"{role}.home": rng.choice(home),
    }
    story.slots |= {f"{role}.{key}": word for key, word in _PRONOUNS["she" if she else "he"].items()}
    for number, (base, gerund) in enumerate(rng.sample(lexicon.HOBBIES, 2)):
        suffix = "" if number == 0 else "2"
        story.slots |= {f"{role}.hobby{suffix}": base, f"{role}.hobbying{suffix}": gerund}
    return kind


def _bind_people(story: _Story) -> None:
    rng = story.rng
    she = rng.random() < 0.5
    kinds = {_bind_person(story, "h", she, set())}
    # Friend and elder are of the other sex, so that every "he" and "she" can mean only one of the two.
    kinds.add(_bind_person(story, "f", not she, {story.slots["h"]}))
    jobs = [job for job in lexicon.JOBS if job not in kinds]
    elder_job, story.slots["job"], story.slots["job2"] = rng.sample(jobs, 3)
    story.slots["j"] = "the " + story.slots["job"]
    family = rng.choice(lexicon.FAMILY_HE if she else lexicon.FAMILY_SHE)
    story.slots["family"] = rng.choice(lexicon.FAMILY_HE + lexicon.FAMILY_SHE)
    own = rng.random() < 0.6
    story.slots["e"] = f"{story.slots['h.his']} {family}" if own else f"the old {elder_job}"
    story.slots["e_cap"] = f"My {family}" if own else f"The old {elder_job}"
    story.slots |= {f"e.{key}": word for key, word in _PRONOUNS["he" if she else "she"].items()}


def _bind_things(story: _Story) -> None:
    rng = story.rng
    # There are twice as many hard things as soft ones.
    hard_and_soft = (_HARD, _HARD, _SOFT)
    for role, kinds in (("t", hard_and_soft), ("t2", hard_and_soft), ("break", (_BREAKABLE,))):
        things, materials = rng.choice(kinds)
        thing = rng.choice([thing for thing in things if thing != story.slots.get("t")])
        colour, material, look = rng.choice(lexicon.COLOURS), rng.choice(materials), rng.choice(lexicon.LOOKS)
        first = rng.choice((colour, look, f"{look} {colour}", material, f"{look} {material}"))
        full = f"{first} {thing}"
        story.slots |= {role: thing, f"{role}.full": full, f"{role}.a": article(full)}
    for role, (preposition, place) in zip(("p", "q"), rng.sample(lexicon.PLACES, 2), strict=True):
        story.slots |= {role: place, f"{role}.at": f"{preposition} {place}"}
    build = rng.choice(lexicon.BUILDS)
    fruit = rng.choice(("apple", "cherry", "plum", "pear", "apricot", "fig", "lemon", "orange", "peach"))
    story.slots |= {
        "build": build,
        "build.a": article(build),
        "fruit": fruit,
        "fruit.s": plural(fruit),
        "town": rng.choice(lexicon.TOWN_STARTS) + rng.choice(lexicon.TOWN_ENDS),
        "hide": rng.choice(lexicon.HIDING_PLACES),
        "t_soft": rng.choice(lexicon.SOFT_THINGS),
        "far": rng.choice(lexicon.FAR_PLACES),
        "secret": rng.choice(lexicon.SECRETS),
        "plant": rng.choice(lexicon.PLANTS),
        "wish": rng.choice(lexicon.WISHES),
        "skill": rng.choice(lexicon.SKILLS),
        "rescued": rng.choice(lexicon.RESCUED),
        "injury": rng.choice(lexicon.INJURIES),
        "petname": rng.choice(lexicon.PET_NAMES),
    }


def _bind_events(story: _Story) -> None:
    rng = story.rng
    slots = story.slots
    slots["contest"], slots["contest.do"], slots["contest.doing"] = rng.choice(lexicon.CONTESTS)
    slots["fear"], slots["dare"] = rng.choice(lexicon.FEARS)
    slots["noise"], slots["culprit"] = rng.choice(lexicon.CULPRITS)
    slots["magic"], slots["m"] = rng.choice(lexicon.MAGIC)
    slots["magic_the"] = slots["m"]
    slots["prize"], slots["prize2"] = rng.sample(lexicon.PRIZES, 2)
    obstacles = rng.sample(lexicon.OBSTACLES, 2)
    for role, (obstacle, answer) in zip(("obstacle", "obstacle2"), obstacles, strict=True):
        slots |= {role: obstacle, f"{role}.did": answer}


def _resolve_choices(story: _Story, template: str) -> str:
    while match := _CHOICE.search(template):
        chosen = story.rng.choice(match[1].split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    return template


def _morning(story: _Story) -> str:
    """When something happens: once a day is given, later events follow it."""
    chosen = story.rng.choice(story.when)
    story.when = plots.LATER
    return chosen


def _verb(story: _Story, head: str, mood: str, answering: bool) -> str:
    """The verb and the manner with which `head` is said."""
    rng = story.rng
    loud = head.endswith("!")
    if loud:
        verb = "cried" if mood in ("sad", "scared", "shy") else rng.choice(_CRY)
    elif head.endswith("?"):
        verb = rng.choice(_ASK.get(mood, _ASK[""]))
    else:
        verb = rng.choice(_ANSWER if answering else _SAY[mood])
    # Nobody shouts softly, and a verb that already has a mood needs no adverb.
    plain = verb in ("said", "asked", "answered", "replied") or (loud and mood in ("glad", "proud"))
    if plain and _MANNERS[mood] and rng.random() < 0.4:
        return f"{verb} {rng.choice(_MANNERS[mood])}"
    return verb


def _speak(story: _Story, match: re.Match[str]) -> str:
    """A spoken line with its speaker, in one of several orders."""
    rng = story.rng
    role, mood, text = match[1], match[2] or "", match[3]
    name = story.slots[role]
    sentences = [sentence.strip() for sentence in re.findall(r"[^.!?]+[.!?]", text)]
    split = len(sentences) > 1 and rng.random() < 0.5
    head = sentences[0] if split else text
    answering = match.string[: match.start()].endswith("?~ ")
    said = _verb(story, head, mood, answering).replace("{his}", story.slots.get(f"{role}.his", "its"))
    if not split and rng.random() < 0.3:
        return f'{name} {said}, "{text}"'
    quoted = head[:-1] + "," if head.endswith(".") else head
    if role == "h" and rng.random() < 0.3:
        line = f'"{quoted}"{_SAME_SENTENCE} {story.slots["h.he"]} {said}.'
    else:
        verb, _, manner = said.partition(" ")
        line = f'"{quoted}"{_SAME_SENTENCE} {verb} {name} {manner}'.rstrip() + "."
    return f'{line} "{" ".join(sentences[1:])}"' if split else line


def _expand(story: _Story, template: str) -> str:
    """The text of one template: choices, bound slots, fresh words, and speech, in this order."""
    text = template.replace("{morning}", _morning(story)) if "{morning}" in template else template
    text = _resolve_choices(story, text)
    text = _SLOT.sub(lambda match: story.slots[match[1]], text)
    text = _FRESH_WORD.sub(lambda match: story.fresh(match[1]), text)
    return _SPEECH.sub(lambda match: _speak(story, match), text)


def _mentions_friend(template: str) -> bool:
    return "{f}" in template or "{f." in template or "~f" in template


def _pick(story: _Story, variants: Sequence[str]) -> str:
    """One variant of a beat, such that the friend is introduced once, and before being mentioned."""
    if story.friend_known:
        fitting = [variant for variant in variants if "{f.a}" not in variant]
    else:
        fitting = [variant for variant in variants if "{f.a}" in variant or not _mentions_friend(variant)]
    chosen = story.rng.choice(fitting or list(variants))
    if _mentions_friend(chosen) and not story.friend_known:
        if "{f.a}" not in chosen:
            chosen = story.rng.choice(plots.FRIEND_INTRODUCTIONS) + " " + chosen
        story.friend_known = True
    return chosen


def _tell(story: _Story, variants: Sequence[str]) -> str:
    return _expand(story, _pick(story, variants))


def _opening(story: _Story) -> str:
    if story.rng.random() < 0.2:
        story.when = plots.SOON
        return _tell(story, plots.DIRECT_OPENINGS)
    return f"{_tell(story, plots.INTRODUCTIONS)} {_tell(story, plots.DETAILS)}"


def _ending(story: _Story, plot: plots.Plot) -> str:
    parts = [_tell(story, plot.ending)]
    if story.rng.random() < 0.75:
        parts.append(_tell(story, plot.morals))
    if story.rng.random() < 0.6:
        parts.append(_tell(story, plots.CLOSINGS))
    return " ".join(parts)


def _polish(text: str) -> str:
    """Single spaces, the right indefinite articles, and capitals where sentences begin."""
    text = re.sub(r" +", " ", text).replace(" \n", "\n").replace("\n ", "\n").strip()
    text = _ARTICLE.sub(lambda match: match[1] + article(match[2])[1 : -len(match[2])], text)
    text = _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
    return text.replace(_SAME_SENTENCE, "")


def story(rng: random.Random) -> str:
    """One story of three paragraphs, drawn from `rng`."""
    told = _Story(rng)
    _bind_people(told)
    _bind_things(told)
    _bind_events(told)
    plot = rng.choice(plots.PLOTS)
    opening = _opening(told)
    body = " ".join(part for part in (_tell(told, beat) for beat in plot.beats) if part)
    return _polish(f"{opening}\n\n{body}\n\n{_ending(told, plot)}")


def stories(seed: int, count: int) -> Iterator[str]:
    """The first `count` stories of a seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield story(rng)


def main() -> None:
    """Prints stories."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    arguments = parser.parse_args()
    print("\n\n* * *\n\n".join(stories(arguments.seed, arguments.count)))


if __name__ == "__main__":
    main()

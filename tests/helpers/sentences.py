"""Whether what users read is whole sentences: with a subject, and a verb that is not that of a clause beside the main one."""

import re


def listed(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# forms of verbs that are hardly anything else; what is also a noun here (frames, steps, masks, windows) is no proof of a sentence
VERBS = listed(
    """
    act acts add adds agree agrees answers applies apply are ask asks attend attends averages be bear bears become becomes began
    begin begins believes belong belongs bends bounds breaks bring brings call calls can cannot carries carry change changes
    choose chooses coincide combine combines come comes compare compares compute computed computes contain contains continue
    continues converts cost costs could count counts cover covers cuts decide decides depend depends describe describes did differ
    differs divide divides do does downloads draw draws encodes ended ends expect expects explain explains fade fades fill finish
    finishes fills find finds fit fits follow follows forget forgets freezes get gets give gives go goes grow grows guides had
    halves happen happens has have help helps hide hides hold holds interpolates is joins judges keep keeps know knows lasts lead
    leads learn learns lets lie lies limits loads look looks lose loses lowers make makes may mean means measure measures meet
    meets mirrors mix mixes move moves multiplies must names need needs offer offers overlap overlaps paints pass passes plays
    points predict predicts prevents produces pulls put puts raises reaches read reads refuse refuses remain remains remembers
    removes repeats replace replaces resemble resembles resumes return returns rise rises run runs samples satisfy save saves say
    says scales see sees selects separates serves set sets shall share shares shifts shortens show shows shrinks slides smooths
    spans speeds stand stands start starts stay stays steadies steady stop stops suit suits swap swaps take takes tell tells tends
    tests think took touches train trains treats trusts turn turns understands use uses varies vary waits want wants was watches
    weighs went were will work works would write writes
    """
)
BESIDE = listed("that which who whose where what when whenever if whether how why because unless although")
NOT_BESIDE = re.compile(r"\b(?:so that|that of|after that|takes that|that from|those that)\b")
ASKS = listed("connect use set chain choose leave see take write give put")  # a whole sentence needs no subject then
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
END = re.compile(r"(?<=[a-z0-9)\]'\"][.])\s+(?=[A-Z0-9])")
DESCRIBES = re.compile(r"[A-Z][a-z]+s\b")  # what a node does: Reads, Makes


def sentences(text: str) -> list[str]:
    """A text's sentences."""
    return [part for line in text.splitlines() for part in END.split(line.strip()) if part]


def whole(sentence: str) -> bool:
    """Whether a sentence has more verbs than clauses beside the main one, and something before the first of them."""
    clause = re.split(r"[;:(]", sentence)[0]
    words = [word.lower() for word in WORD.findall(NOT_BESIDE.sub("so", clause))]
    if words and words[0] in ASKS:
        return True
    verbs = [place for place, word in enumerate(words) if word in VERBS and words[max(0, place - 1)] != "to"]
    subject = bool(verbs) and (verbs[0] > 0 or clause[0].isdigit())
    return subject and len(verbs) > sum(word in BESIDE for word in words)


def wrong_with(text: str, *, describes: bool = False) -> list[str]:
    """What is no whole sentence in a text, each with the reason; ``describes`` is for a node, which may be the
    subject itself: Reads, Makes.

    >>> wrong_with("The seed decides all noise. 0 is usual.")
    []
    >>> wrong_with("Of all noise."), wrong_with("Frames that the model sees at once.")
    (['no sentence: Of all noise.'], ['no sentence: Frames that the model sees at once.'])
    """
    found = sentences(text)
    if not found:
        return ["there is no text"]
    wrong = [f"no full stop: {line}" for line in text.splitlines() if not line.rstrip().endswith(".")]
    wrong += [f"no capital: {part}" for part in found if not re.match(r"[A-Z0-9\"'-]", part)]
    said = (part for part in found if not (describes and DESCRIBES.match(part)))
    return wrong + [f"no sentence: {part}" for part in said if not whole(part)]

"""Whether a step states anything that could be judged, by patterns of English, in linear time.

A line is taken apart: labels and marks first (`1.`, `**Step 2:**`), then sentences. A sentence states nothing if
it fits one of a few forms: a colon leaves it open, it is a plan (`Let's find ...`), a question, or filler.
"""

import re

from stepconf.core.protected import CLOSING_TAG, OPENING_TAG

STATES_NOTHING = "states nothing"  # the reason of a verdict on a step with nothing to judge

_LONGEST = 600  # characters; no announcement is longer, and the work on a text is bounded
_BLOCK = re.compile(r"\\\[|\$\$|\\begin\{|```|~~~|\[asy\]|^[ \t]*+\|", re.MULTILINE)
_RELATION = re.compile(
    r"[=<>≤≥≈≠≡∈⇒→|]|\\(?:boxed|fbox|leq?|geq?|neq?|approx|equiv|cong|sim|in|to|implies|iff|Rightarrow"
    r"|rightarrow|mid|parallel|perp|subset(?:eq)?)(?![a-zA-Z])"
)
_BARE_LABEL = (
    r"(?:\d{1,3}+(?:\.\d{1,3}+)?[.)]|\(\d{1,3}+\)|(?:\([a-z]{1,3}+\)|[A-Za-z][.)])(?=[ \t]++\S)"
    r"|(?:[Ss]tep|STEP|Case|Part|Method|Phase|Stage)[ ](?:\d{1,3}+|[A-Z]|[IVX]{1,4}+|one|two|three|four|five|six)\b)"
)
_LABEL = re.compile(
    rf"(?:[ \t]|[-+•·‣▪◦–—](?=[ \t])|\\item\b|(?:{_BARE_LABEL})(?=\W|\Z)[.:)]?(?=[ \t]|\Z))*+"
)
_HEADING = re.compile(
    r"\#{1,6}(?:[ \t]++(?P<hashes>.*+)|\Z)|\*\*(?P<strong>[^*]++)(?<![.!?])\*\*:?\Z|__(?P<under>[^_]++)(?<![.!?])__:?\Z"
)
_TITLE_LABEL = re.compile(r"[A-Z][a-z]++ \d{1,3}+[ ]?[:.—–-][ ]")
_PART_END = re.compile(r"(?:(?<=[\w)\]}$%][.!?])[ \t]++(?=[A-Z(\\$\d])|(?<=[:：])[ \t]++)")
_WORD = re.compile(r"[^\W\d_]{2,}")
_DIGIT_OR_FORMULA = re.compile(r"[\d$]|\\\(")

# Verbs that name a goal, and those that name an operation (a statement, unless the line ends in a colon).
_GOALS = (
    r"(?:re)?calculate|determine|find(?! that)|compute|identify|figure|solve|work|break|follow|start|begin|proceed"
    r"|move|go|look|see(?! that)|understand|consider|analy[sz]e|check|verify|evaluate|think|examine|explore|try|do"
    r"|take|review|continue|simplify|list|summari[sz]e|set up|read|tackle|approach|focus|return|write|rewrite"
    r"|estimate|answer|express"
)
_ORDERED_GOALS = r"(?:re)?calculate|determine|find(?! that)|compute|identify|figure out|solve"
_OPERATIONS = (
    r"(?:add|subtract|multiply|divid|summ|us)ing|add|subtract|multiply|divide|sum|split|combine|apply|use"
    r"|substitute|plug|convert|put|expand|factor|count|update|adjust|compare|equate|isolate|rearrange"
)
_GOING_ON = r"(?:calculat|determin|find|comput|solv|break)ing"
_BEFORE = (
    r"(?:(?:now(?! that)|next|then|first|second|third|fourth|fifth|last|firstly|secondly|thirdly|lastly|finally|so|ok"
    r"|okay|alright|well|hmm|wait|sure|also|again|and|after that|to start|to begin)\b(?:[,.!:]|[ ]-)?[ ]++)*+"
)
_PURPOSE = (
    r"(?:(?:in order )?to[ ][a-z](?:[^:?!]|(?<=\d):(?=\d)){2,250}?,[ ]"
    r"|(?:now|once)[ ](?:that[ ])?(?:we|you|i)(?:[’']ve)?[ ][^:,?!]{2,150}+,[ ])"
)
_LETS = r"(?:let[’']?s|let us|let me)"
_WILL = (
    r"(?:(?:we|i|you)(?: first| now| then| also)?"
    r"(?:[’']ll|[’']re going to| will| need to| have to| must| should| want to| are going to))"
)
_CAN = r"(?:(?:we|i|you)(?: can| could| may| might|))"
_ADVERBS = r"(?:[ ](?:now|then|first|next|also|finally|simply|just|easily|carefully|again))*+"
_PLANS = re.compile(
    rf"{_BEFORE}(?:(?:(?:{_PURPOSE}{_BEFORE})?(?:{_LETS}|{_WILL}){_ADVERBS}[ ]|{_PURPOSE}{_BEFORE}{_CAN}{_ADVERBS}[ ])"
    rf"(?:{_GOALS})|{_PURPOSE}?(?:{_ORDERED_GOALS}))\b(?P<tail>.*+)",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(
    rf"{_BEFORE}{_PURPOSE}?{_BEFORE}(?:(?:{_LETS}|{_WILL}|{_CAN}){_ADVERBS}[ ])?"
    rf"(?:{_GOALS}|{_OPERATIONS}|{_GOING_ON})\b(?P<tail>.*+)",
    re.IGNORECASE,
)
# A claim after the verb: a reason, or a verb with its number.
_CLAIM = re.compile(
    r"\b(?:since|because|therefore|thus|hence)\b|, (?:which|so|and (?:we|it|he|she|they))\b"
    r"|\b(?:is|are|was|were|be|has|had|have|get|gets|gives?|giving|obtain|yields?|equals?|makes?|making|to)"
    r"(?: us)? (?:only |just |about |exactly )?(?:[-−$*(]|\\\()*+\d",
    re.IGNORECASE,
)
# What makes a plan more than a goal: how to reach it, an expression to work out, a claim.
_METHOD = re.compile(
    rf"\b(?:{_OPERATIONS}|then|as|note|notice|observe|recall|suppose|assume|claim)\b|[+×÷*]|\w/\d|\d ?[-−] ?\d"
    r"|\\(?:times|cdot|div|d?frac|sqrt|binom)(?![a-zA-Z])",
    re.IGNORECASE,
)

# The end of a sentence that a colon leaves open.
_OPEN_END = re.compile(
    r"\b(?:(?:is|are|was|were|be|being|been|equals?|gives?|giving|get|gets|have|has|had|know|knows|obtain|yields?"
    r"|becomes?|means|includes?|given|expressed|calculated|found|written|computed|represented|determined|follows"
    r"|shows?|see)(?: us| that| as| by| as follows| to be| the following| then)?|as follows|(?:the )?following"
    r"(?: [a-z]++){0,3}|as|by|to|that|where|using|for|of|with|from|into|in|on|these (?:steps|[a-z]++))\Z",
    re.IGNORECASE,
)
_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|had|have|does|do|did|will|would|can|could|must|cannot|equals?|gives?|makes?|gets?"
    r"|costs|needs|became|becomes?|means|implies|contains?|satisf(?:y|ies)|holds?|represents?|denote[sd]?)\b"
    r"|\b(?:he|she|it|they|we|i|you|this|that|which|who|there)\b|[a-z](?:s|ed) (?:the|an?|his|her|its|their|all|each)\b"
    r"|n[’']t\b",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",|\b(?:since|because|if|as|when|while|after|so|given|therefore|thus|hence|and)\b", re.IGNORECASE
)
_HERE = re.compile(rf"{_BEFORE}here(?:[’']s| is| are)\b", re.IGNORECASE)
_NUMBERED = re.compile(r"[A-Za-z]++ \d{1,3}+\Z")
_FILLERS = re.compile(
    r"(?:(?:ok|okay|alright|all right|hmm+|wait|sure|great|good|well|now|so|then|first|next|finally|solution|proof"
    r"|hold on|here we go|here goes|step by step|certainly|of course|absolutely|right)\b[\s,.!…?-]*+)++\Z",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    rf"{_BEFORE}(?:how|what|which|who|whose|where|when|why|is|are|does|do|did|can|could|should|right)\b.*\?[\"'”)]*\Z",
    re.IGNORECASE,
)


def without_tags(text: str) -> str:
    """The text with a space for each tag that opens or closes something (`<think>`, `\\end{itemize}`)."""
    return CLOSING_TAG.sub(" ", OPENING_TAG.sub(" ", text))


def states_something(text: str) -> bool:
    """Whether a text holds anything that could be true or false; when in doubt, it does.

    Counts: a relation between numbers or formulas, a number or formula of its own, an assertion, a definition,
    an operation that is ordered (`Add the two.`), the line of the final answer, code, a table, a figure, any
    language but English. Does not count: white space and tags; a label or heading; a plan without a result
    (`Let's find the cost of 3 pens.`); a line that a colon leaves open (`The total is:`, `Add the two:`), with no
    claim before; a question without numbers; `Okay, wait.` A text that holds one statement states something.
    """
    if len(text) > _LONGEST:
        return True
    if "<" in text or "[" in text or "{" in text:
        text = without_tags(text)
    return bool(_BLOCK.search(text)) or any(map(_line_states, text.splitlines()))


def _line_states(line: str) -> bool:
    line = _unlabelled(line.strip())
    if heading := _HEADING.match(line):
        return _heading_states(heading[heading.lastgroup] if heading.lastgroup else "")
    if _RELATION.search(line):
        return True
    # `**1. Cost of the pens**: ...`
    line = _unlabelled(line.replace("**", "").replace("__", "").strip(" \t*_"))
    return any(map(_states, _PART_END.split(line)))


def _unlabelled(text: str) -> str:
    label = _LABEL.match(text)
    return text[label.end() :] if label else text


def _heading_states(title: str) -> bool:
    """Whether a heading is more than a topic, which may name a relation (`The case x = 2`)."""
    if re.search(r"nswer\b\W*+\w", title):
        return True
    title = _unlabelled(title.strip(" \t*_:"))
    if label := _TITLE_LABEL.match(title):
        title = title[label.end() :]
    if title.startswith(("$", "\\(")):
        return bool(_RELATION.search(title))
    if not _WORD.match(title) and re.match(r"[\w\\(-]", title):
        return True  # `12`, `3 + 4 = 7`, `\boxed{5}`
    return not _ANNOUNCED.match(title) and bool(re.search(r"\d", title) and _FINITE.search(title))


def _states(sentence: str) -> bool:
    sentence = sentence.strip(" \t*_")
    if not re.search(r"\w", sentence):
        return bool(re.search(r"[$∞∅]|\\\(", sentence))
    if not sentence.isascii() and re.search(r"[^\W\d_\x00-\u024f\u0370-\u03ff]", sentence):
        return True
    if sentence[-1] in ":：":
        return _colon_states(sentence[:-1].rstrip(" \t*_"))
    if _FILLERS.match(sentence):
        return False
    if _QUESTION.match(sentence):
        return bool(_DIGIT_OR_FORMULA.search(sentence))
    plan = _PLANS.match(sentence)
    return not plan or bool(_CLAIM.search(plan["tail"]) or _METHOD.search(sentence))


def _colon_states(clause: str) -> bool:
    """Whether a clause that a colon ends claims something itself."""
    if not _WORD.search(clause):
        return bool(re.search(r"\w", clause))
    if announced := _ANNOUNCED.match(clause):
        return bool(_CLAIM.search(announced["tail"]))
    if _HERE.match(clause):
        return False
    has_number = bool(_DIGIT_OR_FORMULA.search(clause))
    if found := _OPEN_END.search(clause):
        head = clause[: found.start()]
        return bool(_CLAIM.search(head)) or (has_number and bool(_REASON.search(head)))
    if has_number:
        return not _NUMBERED.match(clause)
    return bool(_FINITE.search(clause))

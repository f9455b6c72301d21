"""Why a step, a prefix or a solution makes no pair, and what a run lacks where one reason is the commonest."""

AFTER_ERROR = "after the first error"
UNKNOWN_LABEL = "unknown label"
NO_TOKENS = "no tokens"
NO_LOGPROBS = "no log-probabilities"
CONFIDENT = "correct and confident"
NO_RIVAL = "no competing candidate"
NO_CORRECTION = "no correct step for the incorrect one"
NO_FIRST_ERROR = "not a first error"
ONE_CHILD = "one step only after its tokens"
UNGRADED = "fewer than two steps with graded completions"
CLOSE = "shares of right completions too close"
SAME_OUTCOME = "no step beside one of another outcome"
BRANCH = "a branch, not a whole solution"
CUT_IN_REASONING = "cut off inside its thinking"
OTHER_PART = "a step of the other part"
UNKNOWN_ANSWER = "answer of unknown correctness"
SAME_ANSWER = "all decided answers of the problem are alike"
NONE_LEFT = "no solution left to pair with"
LESS_CONSISTENT = "never the most consistent"
SAME_SOLUTION = "same solution again"
SAME_PAIR = "same pair again"
CAPPED = "beyond the cap of its problem"
SURPLUS = "surplus of its kind"

_SIBLINGS = "other steps after the same tokens; sample branches: --branch first-error,uncertain"
_VERDICTS = "verdicts; name more verifiers: --verify symbolic,critic"
_ANSWERS = "problems with right and wrong answers; sample more: --samples 16"

LACKS = {
    NO_RIVAL: _SIBLINGS,
    NO_CORRECTION: _SIBLINGS,
    ONE_CHILD: _SIBLINGS,
    UNGRADED: _SIBLINGS,
    SAME_OUTCOME: _SIBLINGS,
    NO_LOGPROBS: "the log-probabilities of tokens: stepconf score, or generate with --engine vllm",
    UNKNOWN_LABEL: _VERDICTS,
    NO_FIRST_ERROR: "steps that are labelled incorrect; name more verifiers, or take other problems",
    CONFIDENT: "uncertain steps; raise --tau",
    CLOSE: "steps whose outcomes differ; lower --set pairs.margin",
    CUT_IN_REASONING: "solutions that come to an answer; raise --max-tokens",
    UNKNOWN_ANSWER: "gold answers, or the verifier `final`: --verify final",
    SAME_ANSWER: _ANSWERS,
    NONE_LEFT: _ANSWERS,
}

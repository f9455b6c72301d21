"""What states something that could be judged, and what only announces it."""

import pytest

from stepconf.core.statements import states_something
from tests.shared_data import shared_rows

ANNOUNCEMENTS = [
    "Let's calculate the cost:",
    "First, we need to find out how many apples there are:",
    "To solve this, follow these steps:",
    "To find the cost after 30 years, we need to look at the two parts of 1:00 PM:",
    "Let's break down the problem step by step.",
    "To solve this problem, let's break it down step-by-step.",
    "Let’s see how many there are. Then,",
    "Now that we have \\(x\\), we can find the ages of Ann and Bob:",
    "Now, we add the two totals together:",
    "Next, add the 67 raspberries to the total:",
    "The steps are:",
    "The total cost is:",
    "The cost of 3 apples is:",
    "The final answer is:",
    "Here is the solution:",
    "**Total cost:**",
    "- **Coaching:**",
    "1. **Calculate the total number of eggs**:",
    "2. Determine the amount of fiber.",
    "### Step 1: Calculate the total",
    "### The case \\( x = 2 \\)",
    "#### Part 2: From \\( x = 1 \\) to \\( x = 3 \\)",
    "**Final Answer**",
    "Step 2",
    "Step 2:",
    "1.",
    "####",
    "Given:",
    "Okay, wait.",
    "Let's see.",
    "How many apples are left?",
    "<think>",
    "</think>\n<answer>",
    "\\begin{itemize}",
    "\\end{enumerate}",
    "[THINK]",
    "---",
    " \n",
    "",
    "### Costs\n\n<br/>\nLet's add them:",
]
STATEMENTS = [
    "Two and two is 4.",
    "Step 2: 3 + 4 = 7",
    "### Step 2: 3 + 4 = 7",
    "## The total is 7",
    "**John does not have any left.**",
    "So 2 + 3 = 5:",
    "Since she has 3 apples and 4 pears, she has 7 fruits:",
    "Let's add 3 and 4 to get 7:",
    "The triangle is isosceles:",
    "Janet sells the rest:",
    "We have 12 eggs left:",
    "First, find the price of a pen: The pen costs 3 dollars.",
    "Let's find the largest. Among these, 96 is the largest.",
    "To find the units, we calculate \\( \\frac{3}{4} \\times 120 \\).",
    "We can find a red ball in bag A.",
    "Let \\( x \\) be the number of apples.",
    "Let's denote the number of coins by C.",
    "Add the two.",
    "- red",
    "We are done.",
    "The answer is 5.",
    "### Final Answer: 42",
    "**Answer: 18**",
    "**18**",
    "- Domain: \\((-∞, ∞)\\)",
    "**Final Answer: yes**",
    "Yes.",
    "B.",
    "#### 12",
    "12",
    "\\boxed{5}",
    "\\[ 3 \\cdot 4 \\]",
    "```python\nx",
    "Is it 5?",
    "答案：5",
    "我们来计算：",
    "### Costs\nThe pen is cheap.",
    "x",
]


@pytest.mark.parametrize("text", ANNOUNCEMENTS)
def test_announcements_state_nothing(text: str) -> None:
    assert not states_something(text)


@pytest.mark.parametrize("text", STATEMENTS)
def test_statements_state_something(text: str) -> None:
    assert states_something(text)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_one_statement_among_announcements_is_enough(statement: str) -> None:
    assert states_something(f"### Costs\n\nLet's calculate the cost:\n{statement}\nNow add them:")


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_the_first_errors_that_people_marked_state_something(name: str) -> None:
    """All but one, a heading that misreads the problem: `### Scenario 3: All Three ... are Chosen`."""
    rows = shared_rows(f"processbench/{name}_dev.jsonl.gz")
    marked = [row["steps"][row["label"]] for row in rows if row["label"] >= 0]
    silent = [step for step in marked if not states_something(step)]
    assert len(marked) > len(rows) / 4
    assert len(silent) <= 1, silent

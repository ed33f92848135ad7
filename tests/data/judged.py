"""A good row, the reason to drop it once it is changed, and traces that are no loop."""

from dataclasses import replace

from pipeline.data.read.rows import Row
from pipeline.data.work.filters import checks, first_reason
from pipeline.recipe import Filters

ROW = Row("1", "s", None, "What is 2 + 2?", "Two and two is four.", "It is 4.", "4")
ALL = Filters(min_reasoning_words=3, languages=("en",))

TRACE = """Okay, so I need to find how many integers between 1 and 1000 leave a remainder of 2
when they are divided by 7. Let me think. The first such integer is 2, then 9, then 16, and so on.
So they form an arithmetic sequence with first term 2 and common difference 7. The largest one
that is not above 1000 would be 996, since 7 * 142 = 994 and 994 + 2 = 996. Wait, let me check
that again: 996 / 7 is 142 with remainder 2. Yes. The number of terms is (996 - 2) / 7 + 1 = 143.
Hmm, but does the problem include the end points? Since 1000 has remainder 6, it does not matter.
"""


def traces(count: int) -> str:
    """Reasoning that goes on, its numbers changing."""
    return "\n".join(TRACE.replace("7", str(n)).replace("2", str(n + 5)) for n in range(count))


def reason(filters: Filters = ALL, **changes: str | None) -> str | None:
    return first_reason(checks(filters), replace(ROW, **changes))

"""What a test is, what came of it, and the table."""

from lab import Failure

COLUMNS = ["messages", "acknowledged", "arrived", "missing", "doubled"]


class Test:
    def __init__(self, function, name, limit, arguments):
        self.function, self.name, self.limit, self.arguments = function, name, limit, arguments


def test(name, limit=60, **arguments):
    """Makes a test of a function; given several times, several tests. `limit` in seconds."""

    def register(function):
        function.tests = [Test(function, name, limit, arguments), *getattr(function, "tests", [])]
        return function

    return register


def tests_of(module):
    return [one for thing in vars(module).values() for one in getattr(thing, "tests", [])]


class Result:
    """One line of the table; a test without counted messages leaves the counts empty."""

    def __init__(self, name):
        self.name = name
        self.counts = dict.fromkeys(COLUMNS)
        self.seconds = 0.0
        self.error = self.note = None
        self.faults = []

    def add(self, published, acknowledged, arrivals, *, ordered=True, once=False, what="messages"):
        """Numbers that were published and acknowledged, and the numbers that arrived, as they came.

        Whatever was acknowledged must be there, nothing else than what was published; `ordered`: the first arrivals of
        the numbers must be in the order in which they were published; `once`: none may come again.
        """
        published, acknowledged = set(published), set(acknowledged)
        first = list(dict.fromkeys(arrivals))
        missing = acknowledged - set(first)
        if missing:
            self.faults.append(f"{what}: acknowledged and missing: {shortened(sorted(missing))}")
        strange = set(first) - published
        if strange:
            self.faults.append(f"{what}: arrived and never published: {shortened(sorted(strange))}")
        late = [after for before, after in zip(first, first[1:]) if after < before]
        if ordered and late:
            self.faults.append(f"{what}: first arrivals out of order: {shortened(late)}")
        if once and len(arrivals) > len(first):
            again = [number for number in first if arrivals.count(number) > 1]
            self.faults.append(f"{what}: came more than once: {shortened(again)}")
        numbers = [len(published), len(acknowledged), len(first), len(missing), len(arrivals) - len(first)]
        for column, number in zip(COLUMNS, numbers):
            self.counts[column] = (self.counts[column] or 0) + number

    def check(self):
        if self.faults:
            raise Failure("; ".join(self.faults))


def table(results):
    head = ["test", *COLUMNS, "seconds", ""]
    rows = [head]
    for result in results:
        counts = ["" if count is None else str(count) for count in result.counts.values()]
        rows.append([result.name, *counts, f"{result.seconds:.1f}", "FAILED" if result.error else "ok"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.rjust(width) if 0 < column < len(head) - 1 else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def shortened(items):
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(map(str, items[:10])) + more

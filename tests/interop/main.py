"""Runs the tests one after another and prints a table of what became of their messages."""

import importlib
import os
import random
import signal
import sys
import time
import traceback

import lab
import report

GROUPS = [
    "mosquitto_clients",
    "paho_mqtt",
    "aio_mqtt",
    "gmqtt_client",
    "mqtt_js",
    "node_red",
    "bridge_mosquitto",
    "bridge_tls",
    "bridge_larder",
]


def main():
    binary, words = sys.argv[1], sys.argv[2:]
    seed = int(os.environ.get("INTEROP_SEED") or random.randrange(1_000_000))
    tests = [test for group in GROUPS for test in report.tests_of(importlib.import_module(group))]
    chosen = [test for test in tests if not words or any(word in test.name for word in words)]
    if not chosen:
        sys.exit(f"tests/interop: no test has {' or '.join(words)} in its name")
    built = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(binary)))
    print(f"{binary} of {built}; INTEROP_SEED={seed}", flush=True)

    signal.signal(signal.SIGALRM, out_of_time)
    # What was started is ended then as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results = [run(test, binary, f"{seed} {test.name}") for test in chosen]
    print()
    print(report.table(results))
    failed = [result for result in results if result.error]
    for result in failed:
        print(f"\nFAILED {result.name}: {result.error}")
    # tests/run reads this line.
    print(f"\n{len(results) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def run(test, binary, seed):
    """One test, with all that it starts ended at its end."""
    print(f"{test.name} ...", end=" ", flush=True)
    result = report.Result(test.name)
    started = time.monotonic()
    place = lab.Lab(binary, seed)
    try:
        signal.alarm(test.limit)
        test.function(place, result, **test.arguments)
        result.check()
    except Exception as error:  # Whatever it is, the other tests run.
        result.error = str(error) if isinstance(error, lab.Failure) else traceback.format_exc()
    finally:
        signal.alarm(0)
        result.seconds = time.monotonic() - started
        place.end()
    keep = result.error or os.environ.get("INTEROP_KEEP")
    if keep:
        result.note = f"{result.note or ''} logs in {place.directory}".strip()
    else:
        place.remove()
    print(f"{'FAILED' if result.error else 'ok'} ({result.seconds:.1f} s)", *filter(None, [result.note]), flush=True)
    return result


def out_of_time(_signal, _frame):
    raise lab.Failure("the test's time is over")


if __name__ == "__main__":
    main()

"""Small kinds of stage for the engine's tests: no torch, milliseconds each."""

KINDS = {
    "numbers": "tests.pipelines.fakes.numbers",
    "add": "tests.pipelines.fakes.add",
    "parity": "tests.pipelines.fakes.parity",
    "slow": "tests.pipelines.fakes.slow",
    "raw": "tests.pipelines.fakes.raw",
    "page": "tests.pipelines.fakes.page",
}

"""What the training of the fixture measured beside its steps, and answered aloud."""

MEASURED = [{"step": 60, "eval_loss": 0.4}, {"step": 180, "eval_loss": 0.0311}]
MEASURED += [{"step": 0, "general_loss": 2.1}, {"step": 180, "general_loss": 2.15}]
SPEEDS = [
    {"step": step, "seconds": 0.25, "tokens_per_second": 5000.0 + step, "mfu": 0.4}
    | {"memory_bytes": 1235714048}
    for step in range(1, 181)
]
ALOUD = [
    {"step": step, "question": f"How many are {number}?", "reply": f"<think>\n{step}\n</think>"}
    for step in range(20, 181, 20)
    for number in (2, 3)
]

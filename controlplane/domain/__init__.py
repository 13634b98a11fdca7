"""Pure decisions. Nothing here does I/O, reads a clock or draws a random number; `now` and ids come in as arguments.

state, fold     what the settings log means: verdicts, revisions, generations
status          what is known of the world for one key, and how it changes
events          the events, made from facts
dependencies    order of creation and retirement, cycles
claims          which setting owns an external object
errors          the caller's mistakes
"""

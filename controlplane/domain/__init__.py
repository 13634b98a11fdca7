"""Pure decisions. Nothing here does I/O, reads a clock or draws a random number; `now` and ids come in as arguments.

fold          what the settings log means: verdicts, revisions, generations
history       the past of one key, from the records at its revisions
validation    are declarations sound; messages  in words that say what to do
patch         merge patches of declarations; changes  what differs between two values
status        what is known of the world for one key, and how it changes
events        the events, made from facts
dependencies  order of creation and retirement, cycles
claims        which setting owns an external object
writes        requests to declare and retire, as changes; preconditions  If-Match as an expected revision
documents     what people send to apply, as one document; answers  settings as they are answered, in pages
prune         what an apply with prune retires
sharding      which shard a setting belongs to
errors        the caller's mistakes
"""

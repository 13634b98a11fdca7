"""The settings log and the journal: everything durable, behind two ports.

    ports    SettingsLog, Journal, and the errors both raise
    codec    msgpack maps ↔ bytes (pure)
    kafka    both on topics: for several replicas, and for consumers of other people's making
    sqlite   both in one SQLite file: the embedded default
    memory   both in memory: simulations and unit tests; passes the same contract suite
    feed     the newest records, shared by the tails of a log; tailing  where a tail stands (pure)

Nothing above this package may assume an implementation.
"""

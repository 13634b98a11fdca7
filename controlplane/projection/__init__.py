"""The journal made searchable: a copy that may be thrown away and rebuilt at any time.

    documents   journal records → documents and dead letters (pure)
    queries     filters, pages, series, and the protocol that answers them
    ports       Store: where documents are kept together with the positions they reach
    projector   follows the journal into a store
    sqlite      the store of the embedded default, one SQLite file with FTS5
    tables, selection   its schema and its SELECTs

Nothing here decides anything, and nothing reads the projection to decide: it may lag.
"""

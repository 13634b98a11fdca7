"""The journal made searchable: a copy that may be thrown away and rebuilt at any time.

    documents   journal records → documents and dead letters (pure)
    queries     filters, pages, series, and the protocol that answers them
    ports       Store: where documents are kept together with the positions they reach
    projector   follows the journal into a store
    sqlite      the store of the embedded default, one SQLite file with FTS5
    tables, selection, reading, writing   its schema, its SELECTs, how it answers and writes
    elasticsearch   the store that replicas share: _address, _layout and _questions (pure), _wire, _generations, _reading
    faust_projector, faust_app   what fills it from a log on Kafka       rebuilding   doing so beside the one that is used
    choice      which of these a configuration means                    answers      parts that all stores give alike

Nothing here decides anything, and nothing reads the projection to decide: it may lag.
"""

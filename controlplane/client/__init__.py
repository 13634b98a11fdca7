"""For applications and the command line: the daemon over HTTP, with nothing of the daemon in it.

    http     CoreplaneClient: settings, events, operations, one method per call of the API
    transport  one request: headers, retries with the same Idempotency-Key, problems as exceptions
    stream   the event stream, resumed after every broken connection
    sse      the parser of server-sent events (pure)
    errors   what a call can end with
    cache*   LayeredCache: memory, Redis and Memcached as one cache, configured and invalidated by the daemon

Here belongs what an application needs at run time. Whatever needs the log, the runtime or a reconciler does not.
"""

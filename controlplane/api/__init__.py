"""HTTP. Handlers read a request, ask the domain to decide, the replica to store, and put the answer into words.

    routes       the table of everything that can be called; the rest follows from it (OpenAPI, roles, refusals)
    application  the table as an aiohttp application: middleware, authorisation, life cycle
    parts        what the handlers are given, and the protocols of the running parts they use
    call         one request, authorised and parsed
    settings, declarations, apply, events, stream, operations, meta   handlers, by noun
    table        what a line of the table says
    parameters, bodies, documents   what comes in: parameters, bodies, JSON and YAML
    problems     what goes wrong, as application/problem+json
    auth         who calls, and what they may do
    openapi      the description for machines
    web          assets of the page at `/`

Nothing here decides what a change means: that is `domain`. Nothing here touches a store or a backend.
"""

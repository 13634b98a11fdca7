"""The `coreplane` command: arguments in, calls of the client out, tables or JSON back.

    program    the table of verbs; how errors and exit codes reach the shell
    failure    how a verb ends when it didn't do what was asked
    session    which daemon, which tenant, with which token
    options    options that several verbs share
    arguments  labels, references, times, operations' arguments, spelt as people spell them (pure)
    documents  declarations from files: YAML or JSON, with their places (pure but for reading)
    wording    values, differences and reasons in few words (pure)
    event_lines   of each type of event what matters, on one line (pure)
    rows       tables and facts laid out for the width at hand (pure)
    tables     settings and statuses as rows (pure)
    printing   consoles and formats
    findings   what doctor makes of a daemon's answers (pure)
    waiting    following settings until they converge
    settings, applying, events, operating, daemon_status   verbs that talk to a daemon
    serving, up, down, doctor                              verbs that are or own one
    configuration, daemon, detached, steps                 what these stand on
    upfile     what a running `coreplane up` tells the other verbs

Nothing here decides anything about settings: that is the daemon's work.
"""

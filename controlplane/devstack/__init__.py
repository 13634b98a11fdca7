"""Real backends on this machine, for development and tests: find or install, start, wait until ready, keep alive, stop.

Here belongs what it takes to have a server running under one data directory; what is declared on it is the daemon's affair.

    stack      all backends of some services, as one context      backend    what a backend's module describes
    redis, memcached, kafka, elasticsearch   one module per backend        process    one server process
    java, kafka_program, elasticsearch_program   where a runtime, Kafka and Elasticsearch come from
    provision  find the program, or install it                    apt        Debian's packages, with root or without
    maven      artifacts of Maven's repository                    launcher   scripts that start what was fetched
    guardian   ends the servers when we can't                     ports      free ports, remembered
    secrets    generated passwords                                progress   how steps and failures are told
    example/   the settings that `coreplane up` begins with
"""

"""The pure core: what a job is, what may happen to it, and what follows.

`decide` reads the state and an event and returns changes; `apply` puts changes into the state. Neither touches the
outside: no clock, no randomness, no I/O. What is durable among the changes is the journal, and replaying the journal
uses the same `apply`, so that the state after a restart is the state before it.
"""

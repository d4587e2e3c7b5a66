"""Webhooks: events go by HTTP to whoever speaks no NATS, each signed, and kept until it is taken or given up.

How it works. One durable consumer reads the event stream. For each webhook whose filters take an event it writes a
row, a *delivery*, and acknowledges the event once the rows are committed: so exactly the events that were committed are
sent, and a registry that is killed in between finds the event again, and the row already there. Workers take rows that
are due, POST them, and write down what came of it.

    waiting ── 2xx ──────────────────────────────> done (kept for an hour, so that a repeat is known for one)
       │ ├── no answer, 408, 425, 429, 5xx ─────> waiting: the webhook rests, then is tried with one event
       │ └── another answer ────────────────────> waiting: this event alone comes again later
       └── given up: after so many refusals, or so many hours ──> dead ── resend ──> waiting

A webhook that answers nothing gets one request per rest, and the rests grow, with jitter; at its first success all
that waits is due at once. Order is not promised: receivers go by the event's time, and by its id for repeats.

What bounds it: so many webhooks, so many deliveries waiting for one (then it is switched off, and said), so many dead
ones (then the oldest go), so much of an answer read, so many requests to one webhook at a time.

A row is taken by a lease in its own column: no transaction is open while a receiver takes its time, and two registries
share the work.
"""

"""What must hold for the reference system; numbers are those of docs/architecture.md."""

INVARIANTS = {
    "bricked": "1: the terminal always comes back",
    "silent": "1: the terminal always comes back",
    "restless": "1: a healthy terminal writes nothing",
    "needless": "1: no person is needed while the application is intact",
    "unsure": "1: what a terminal relies on reads the same at every start",
    "unprotected": "1: nothing but boot can change boot and identity",
    "forgotten": "1: the journal forgets nothing",
    "overwritten": "1: an update stays in the memory that it has secured",
    "untried": "1: software that fails its trial does not stay",
    "not-updated": "1: an update that is wanted comes about",
    "rejected": "1: a good update is taken",
    "data-lost": "2: nothing of the user's is lost",
    "data-read": "2: nobody but the terminal can read the user's data",
    "data-left": "2: nothing of the user's is left with the server",
    "unaudited": "2: what was done to the user's data is in the audit",
    "forged": "3: nothing forged and nothing old runs",
    "executed-or-programmed-wrongly": "4: the NOR is used as its data sheet says",
    "server-lies": "5: the server's word is true",
}

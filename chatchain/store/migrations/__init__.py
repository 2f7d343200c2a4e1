"""Alembic's revisions of the relay's tables; `store.server` runs them when a relay starts.

From the first release on, the programs of two neighbouring revisions must be able to work on one database, so
that a relay of several processes is upgraded one after the other: a revision adds tables, indexes, and
columns that may be left out, and takes nothing away that the revision before it reads or writes. What is no
longer used goes one release later. Each revision says in `oldest` whose programs may work on the database
after it: for such a step the revision before; its own number where a step cannot be taken so, which wants
all processes stopped. tests/store/test_migrations.py holds the revisions to what they say.
"""

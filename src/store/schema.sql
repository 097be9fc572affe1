-- Schema version 1. Integer keys, few indexes; the log is journal and outbox at once.

CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE saga (
  no           INTEGER PRIMARY KEY,
  name         TEXT NOT NULL UNIQUE,
  newest       INTEGER,
  listening_ms INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Names of states, so that rows carry a small number.
CREATE TABLE state (
  no   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE definition (
  no        INTEGER PRIMARY KEY,
  saga      INTEGER NOT NULL,
  digest    BLOB NOT NULL UNIQUE,
  source    TEXT NOT NULL,
  file      TEXT NOT NULL,
  loaded_at INTEGER NOT NULL
) STRICT;

-- The body comes last: who lists instances does not read it.
CREATE TABLE instance (
  no         INTEGER PRIMARY KEY,
  saga       INTEGER NOT NULL,
  key        TEXT NOT NULL,
  definition INTEGER NOT NULL,
  status     INTEGER NOT NULL,
  marks      INTEGER NOT NULL,
  state      INTEGER NOT NULL,
  incident   INTEGER,
  outcome    TEXT,
  turn       INTEGER NOT NULL,
  moved      INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  ended_at   INTEGER,
  seq        INTEGER NOT NULL,
  digest     BLOB NOT NULL,
  checksum   INTEGER NOT NULL,
  body       BLOB NOT NULL
) STRICT;
CREATE INDEX instance_key ON instance (saga, key);
CREATE INDEX instance_live ON instance (no) WHERE ended_at IS NULL OR marks <> 0;
CREATE INDEX instance_marked ON instance (no) WHERE marks <> 0;
-- What retention may remove: abandoned and marked instances stay.
CREATE INDEX instance_ended ON instance (ended_at) WHERE ended_at IS NOT NULL AND status <> 5 AND marks = 0;

-- In commit order. A row of no instance is a message that a person published.
CREATE TABLE log (
  seq         INTEGER PRIMARY KEY,
  instance    INTEGER,
  turn        INTEGER NOT NULL,
  prev        INTEGER,
  at          INTEGER NOT NULL,
  rules       INTEGER NOT NULL,
  weight      INTEGER NOT NULL,
  from_status INTEGER,
  from_state  INTEGER,
  to_status   INTEGER,
  to_state    INTEGER,
  outgoing    INTEGER NOT NULL,
  given       TEXT,
  messages    TEXT,
  changed     TEXT,
  notes       TEXT,
  after       BLOB,
  digest      BLOB NOT NULL
) STRICT;
CREATE INDEX log_loose ON log (seq) WHERE instance IS NULL;

CREATE TABLE straggler (
  seq         INTEGER NOT NULL,
  place       INTEGER NOT NULL,
  instance    INTEGER,
  subject     TEXT,
  outcome     INTEGER NOT NULL,
  reason      TEXT,
  tries       INTEGER NOT NULL,
  maybe_taken INTEGER NOT NULL,
  since       INTEGER NOT NULL,
  next_at     INTEGER,
  PRIMARY KEY (seq, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX straggler_next ON straggler (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX straggler_instance ON straggler (instance) WHERE instance IS NOT NULL;

-- lane 0 is wall time, any other the listening clock of the saga with that number.
-- remaining is there while the instance is held; -1 where the timer had not begun.
CREATE TABLE timer (
  instance  INTEGER NOT NULL,
  serial    INTEGER NOT NULL,
  lane      INTEGER NOT NULL,
  due       INTEGER,
  remaining INTEGER,
  PRIMARY KEY (instance, serial)
) STRICT, WITHOUT ROWID;
CREATE INDEX timer_due ON timer (lane, due) WHERE due IS NOT NULL;

-- The inbox, in two generations: the older one goes as a whole.
CREATE TABLE seen_0 (id BLOB PRIMARY KEY, body INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE seen_1 (id BLOB PRIMARY KEY, body INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE parked (
  instance INTEGER NOT NULL,
  n        INTEGER NOT NULL,
  input    TEXT NOT NULL,
  PRIMARY KEY (instance, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE aside (
  n              INTEGER PRIMARY KEY AUTOINCREMENT,
  kind           INTEGER NOT NULL,
  reason         TEXT NOT NULL,
  known          BLOB,
  type           TEXT,
  message_id     TEXT,
  source         TEXT NOT NULL,
  correlation_id TEXT,
  exchange       TEXT NOT NULL,
  routing_key    TEXT NOT NULL,
  received_at    INTEGER NOT NULL,
  expires_at     INTEGER,
  error          TEXT,
  properties     TEXT NOT NULL,
  headers        TEXT NOT NULL,
  near           TEXT NOT NULL,
  body           BLOB NOT NULL
) STRICT;
CREATE INDEX aside_kind ON aside (kind);
CREATE UNIQUE INDEX aside_known ON aside (known) WHERE known IS NOT NULL;

CREATE TABLE incident (
  instance  INTEGER NOT NULL,
  number    INTEGER NOT NULL,
  grouping  INTEGER NOT NULL,
  kind      INTEGER NOT NULL,
  state     INTEGER NOT NULL,
  step      TEXT,
  error     TEXT NOT NULL,
  place     TEXT,
  opened_at INTEGER NOT NULL,
  closed_at INTEGER,
  PRIMARY KEY (instance, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_open ON incident (grouping, opened_at) WHERE closed_at IS NULL;

-- Open incidents that look alike: how many there are stands here, so that nobody has to count. A closed incident's
-- grouping means nothing any more.
CREATE TABLE incident_group (
  no    INTEGER PRIMARY KEY,
  saga  INTEGER NOT NULL,
  state INTEGER NOT NULL,
  kind  INTEGER NOT NULL,
  error TEXT NOT NULL,
  open  INTEGER NOT NULL,
  UNIQUE (saga, state, kind, error)
) STRICT;

-- How many instances there are of each sort. incident 0: none.
CREATE TABLE tally (
  definition INTEGER NOT NULL,
  status     INTEGER NOT NULL,
  state      INTEGER NOT NULL,
  marks      INTEGER NOT NULL,
  incident   INTEGER NOT NULL,
  n          INTEGER NOT NULL,
  PRIMARY KEY (definition, status, state, marks, incident)
) STRICT, WITHOUT ROWID;

CREATE TABLE orders (
  n          INTEGER PRIMARY KEY AUTOINCREMENT,
  at         INTEGER NOT NULL,
  verb       TEXT NOT NULL,
  by         TEXT NOT NULL,
  reason     TEXT,
  request_id TEXT,
  instance   INTEGER,
  saga       TEXT,
  key        TEXT,
  asked      TEXT NOT NULL,
  result     TEXT NOT NULL
) STRICT;
CREATE INDEX orders_request ON orders (request_id) WHERE request_id IS NOT NULL;

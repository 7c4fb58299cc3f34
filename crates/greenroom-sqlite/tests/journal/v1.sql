-- A journal of version 1, with a task that runs and one that has left memory.
PRAGMA application_id = 1196576338;
PRAGMA user_version = 1;
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO marks VALUES ('place', 0), ('changes_gone', 0);
CREATE TABLE tasks (
    id TEXT PRIMARY KEY NOT NULL,
    accepted INTEGER NOT NULL,
    age INTEGER NOT NULL,
    granted INTEGER,
    prompted INTEGER,
    aborted INTEGER,
    session TEXT,
    status TEXT NOT NULL,
    run INTEGER NOT NULL,
    left_at INTEGER,
    record TEXT NOT NULL
);
CREATE INDEX tasks_session ON tasks (session) WHERE session IS NOT NULL;
CREATE TABLE texts (
    task TEXT NOT NULL,
    run INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    skill_content TEXT,
    UNIQUE (task, run)
);
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY,
    parent TEXT NOT NULL,
    kind INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX ledger_parent ON ledger (parent, seq);
CREATE TABLE parents (
    parent TEXT PRIMARY KEY NOT NULL,
    settled INTEGER NOT NULL,
    silenced INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    most_entries INTEGER NOT NULL
);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    task TEXT NOT NULL,
    run INTEGER NOT NULL,
    from_status TEXT,
    record TEXT NOT NULL
);
CREATE TABLE stories (
    subject TEXT NOT NULL,
    line INTEGER NOT NULL,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (subject, line)
) WITHOUT ROWID;
CREATE TABLE keys (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, task TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX keys_task ON keys (task);

INSERT INTO tasks VALUES
    ('bg_0000cafe', 3, 3, 1, 1, NULL, 'ses_child', 'running', 1, NULL,
     '{"id":"bg_0000cafe","sessionID":"ses_child","parentSessionID":"ses_parent","spawnDepth":1,"description":"slow build","prompt":"","agent":"explore","status":"running","queuedAt":"2026-09-21T12:00:00.000Z","startedAt":"2026-09-21T12:00:01.000Z","progress":{"toolCalls":2,"lastUpdate":"2026-09-21T12:00:05.000Z"},"concurrencyGroup":"explore","run":1,"attempts":[]}'),
    ('bg_0000beef', 2, 2, 1, 1, NULL, 'ses_other', 'completed', 1, 4102444800000,
     '{"id":"bg_0000beef","sessionID":"ses_other","spawnDepth":1,"description":"look around","prompt":"","agent":"explore","status":"completed","queuedAt":"2026-09-21T11:00:00.000Z","completedAt":"2026-09-21T11:01:00.000Z","progress":{"toolCalls":0,"lastUpdate":"2026-09-21T11:00:30.000Z"},"concurrencyGroup":"explore","run":1,"attempts":[]}');
INSERT INTO texts VALUES
    ('bg_0000cafe', 1, 'Find out why the build is slow.', NULL),
    ('bg_0000beef', 1, 'Look around.', NULL);
INSERT INTO ledger (parent, kind, body) VALUES
    ('ses_parent', 0, '{"joined":{"parent":"ses_parent","task":"bg_0000cafe","run":1,"directory":"/work"}}');
INSERT INTO parents VALUES ('ses_parent', 0, 0, 1790000000000, 1, 100);
INSERT INTO changes VALUES
    (5, 4102444800000, 'bg_0000cafe', 1, 'pending',
     '{"id":"bg_0000cafe","sessionID":"ses_child","parentSessionID":"ses_parent","spawnDepth":1,"description":"slow build","prompt":"","agent":"explore","status":"running","queuedAt":"2026-09-21T12:00:00.000Z","startedAt":"2026-09-21T12:00:01.000Z","progress":{"toolCalls":0,"lastUpdate":"2026-09-21T12:00:01.000Z"},"concurrencyGroup":"explore","run":1,"attempts":[]}');
INSERT INTO stories VALUES
    ('bg_0000cafe', 0, 1790000000000, 'accepted', 'queues under explore'),
    ('bg_0000cafe', 1, 1790000001000, 'running', 'in session ses_child');

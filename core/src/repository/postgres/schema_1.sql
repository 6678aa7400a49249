-- Put into the schema with the prefix of our tables. Texts are TEXT, not JSONB: JSONB refuses \u0000.

CREATE TABLE @schema (version BIGINT NOT NULL);
INSERT INTO @schema VALUES (1);

-- Room in the page: each of these rows is updated with every commit, in place.
CREATE TABLE @counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL) WITH (fillfactor = 10);
INSERT INTO @counters VALUES ('sequence', 0), ('place', 0), ('request', 0), ('key', 0);

CREATE TABLE @owners (
    id TEXT PRIMARY KEY,
    place TEXT NOT NULL,
    lease_ends TIMESTAMPTZ NOT NULL,
    renewed_at TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE @jobs (
    key BIGINT PRIMARY KEY,
    id TEXT NOT NULL,
    place BIGINT NOT NULL,
    version BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    standing SMALLINT NOT NULL,
    claimable SMALLINT NOT NULL,
    hold BOOLEAN NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT,
    head TEXT NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX framewright_jobs_id ON @jobs (id);
CREATE UNIQUE INDEX framewright_jobs_place ON @jobs (place);
CREATE INDEX framewright_jobs_state ON @jobs (state, place);
-- Only what a claim may want: its size follows the jobs that are not done.
CREATE INDEX framewright_jobs_claimable ON @jobs (claimable, owner, place) WHERE claimable > 0;

CREATE TABLE @texts (
    job_key BIGINT NOT NULL,
    name SMALLINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job_key, name)
);

CREATE TABLE @chunks (
    job_key BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job_key, idx)
) WITH (fillfactor = 80);

CREATE TABLE @logs (
    job_key BIGINT NOT NULL,
    idx BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    stream SMALLINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (job_key, idx, attempt, stream)
);

CREATE TABLE @requests (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_key BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX framewright_requests_job ON @requests (job_key);

CREATE TABLE @events (
    first BIGINT PRIMARY KEY,
    job_key BIGINT NOT NULL,
    job TEXT,
    lengths TEXT NOT NULL,
    bodies TEXT NOT NULL
);
-- For the removal of a job's events.
CREATE INDEX framewright_events_job ON @events (job_key);

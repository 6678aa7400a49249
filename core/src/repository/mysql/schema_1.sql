-- Texts are split into parts below max_allowed_packet; part 0 says how many there are, and what is left of a longer one
-- before it does not count. Names are VARBINARY: compared byte by byte, without padding.
-- Every statement may be repeated: DDL commits by itself, so a migration may end in the middle.

CREATE TABLE IF NOT EXISTS framewright_counters (
    name VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
    value BIGINT NOT NULL
) ENGINE = InnoDB;
INSERT IGNORE INTO framewright_counters VALUES ('sequence', 0), ('place', 0), ('request', 0), ('job', 0);

CREATE TABLE IF NOT EXISTS framewright_owners (
    id VARBINARY(255) PRIMARY KEY,
    place MEDIUMTEXT NOT NULL,
    lease_ends DATETIME(6) NOT NULL,
    renewed_at DATETIME(6) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_jobs (
    job_key BIGINT PRIMARY KEY,
    id VARBINARY(255) NOT NULL,
    place BIGINT NOT NULL,
    version BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    standing SMALLINT NOT NULL,
    claimable SMALLINT NOT NULL,
    hold BOOLEAN NOT NULL,
    owner VARBINARY(255) NOT NULL,
    kind VARBINARY(4096),
    head MEDIUMTEXT NOT NULL,
    UNIQUE KEY framewright_jobs_id (id),
    UNIQUE KEY framewright_jobs_place (place),
    KEY framewright_jobs_state (state, place),
    KEY framewright_jobs_claimable (claimable, owner, place)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_texts (
    job_key BIGINT NOT NULL,
    name SMALLINT NOT NULL,
    part INT NOT NULL,
    parts INT NOT NULL,
    body MEDIUMTEXT NOT NULL,
    PRIMARY KEY (job_key, name, part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_chunks (
    job_key BIGINT NOT NULL,
    idx INT UNSIGNED NOT NULL,
    part INT NOT NULL,
    parts INT NOT NULL,
    body MEDIUMTEXT NOT NULL,
    PRIMARY KEY (job_key, idx, part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_logs (
    job_key BIGINT NOT NULL,
    idx INT UNSIGNED NOT NULL,
    attempt INT UNSIGNED NOT NULL,
    stream SMALLINT NOT NULL,
    part INT NOT NULL,
    parts INT NOT NULL,
    body MEDIUMTEXT NOT NULL,
    PRIMARY KEY (job_key, idx, attempt, stream, part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_requests (
    number BIGINT NOT NULL,
    part INT NOT NULL,
    job_key BIGINT NOT NULL,
    body MEDIUMTEXT NOT NULL,
    PRIMARY KEY (number, part),
    KEY framewright_requests_job (job_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_events (
    first BIGINT NOT NULL,
    part INT NOT NULL,
    job_key BIGINT NOT NULL,
    job VARBINARY(255),
    lengths MEDIUMTEXT NOT NULL,
    bodies MEDIUMTEXT NOT NULL,
    PRIMARY KEY (first, part),
    KEY framewright_events_job (job_key)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS framewright_schema (version BIGINT NOT NULL) ENGINE = InnoDB;

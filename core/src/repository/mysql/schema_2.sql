-- By type, too: a claim for some types does not step over waiting jobs of others.
ALTER TABLE framewright_jobs
    MODIFY kind VARBINARY(255),
    DROP KEY framewright_jobs_claimable,
    ADD KEY framewright_jobs_claimable (claimable, owner, kind, place);

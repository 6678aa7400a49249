-- By type, too: a claim for some types does not step over waiting jobs of others. A job without one is of the lane ''.
DROP INDEX @jobs_claimable;
CREATE INDEX framewright_jobs_claimable ON @jobs (claimable, owner, (coalesce('=' || kind, '')), place) WHERE claimable > 0;

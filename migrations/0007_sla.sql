-- Who went dark: challenges, outages that watchers found, and the watchers.

-- The last challenge of a lease.
create table challenge (
    lease bigint primary key,
    challenger address not null,
    since seconds not null,
    deadline seconds not null,
    -- The account's clock then.
    clock seconds not null,
    -- Moot: the lease ended in time, so nobody had to answer any more.
    state text not null check (state in ('open', 'answered', 'dark', 'moot')),
    compensation uint128 not null,
    -- How many there were, and how many were answered.
    challenges bigint not null,
    answers bigint not null
);
create index challenge_open on challenge (deadline, lease) where state = 'open';

-- The last outage of a lease, with those that were merged into it.
create table outage (
    lease bigint primary key,
    began seconds not null,
    ended seconds not null,
    -- What it cost so far, and what all of the lease's outages did.
    due uint128 not null,
    total uint128 not null,
    reports bigint not null
);

create table watcher (
    address address primary key,
    -- Zero once it left.
    seat bigint not null,
    -- The epoch in which it joined.
    since bigint not null,
    -- The reference of its bond's lock; zero once it lost that.
    ref numeric(29, 0) not null,
    equivocated boolean not null
);
create index watcher_in_seat on watcher (seat) where seat <> 0;

create table epoch (
    epoch bigint primary key,
    seed hash not null,
    seats bigint not null
);

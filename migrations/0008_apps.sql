-- Apps that keepers keep deployed.

create table app (
    id bigint primary key,
    owner address not null,
    keeper address not null,
    account hash not null,
    slot bigint not null,
    name text not null,
    -- Whether it still has that name.
    named boolean not null,
    spec hash not null,
    uri text not null,
    -- What the keeper is paid, in units per second.
    fee uint128 not null,
    replicas integer not null,
    max_lock bigint not null,
    max_rate uint128 not null,
    pods hash not null,
    registered_at seconds not null,
    retired_at seconds
);
create index app_by_owner on app (owner, id);
create index app_by_keeper on app (keeper, id);
create index app_by_account on app (account, id);
-- A name is one app's.
create unique index app_by_name on app (name) where named;

-- The last lease of each replica.
create table replica (
    app bigint not null,
    replica integer not null,
    lease bigint not null,
    deployer address not null,
    time seconds not null,
    primary key (app, replica)
);
create index replica_by_lease on replica (lease);

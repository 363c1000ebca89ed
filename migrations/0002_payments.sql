-- Accounts, streams and approvals, as Payments keeps them: settled at the last event that touched them, so that what they
-- are now follows from the clock without a call.

create table account (
    id hash primary key,
    owner address not null,
    salt hash not null,
    free uint128 not null,
    lockup uint128 not null,
    rate uint128 not null,
    clock seconds not null,
    settled_at seconds not null,
    dry boolean not null,
    -- When it last stopped being dry, by a top-up or because nothing runs any more; zero if it never was.
    resumed_at seconds not null,
    -- When it runs or ran dry; null while nothing runs.
    funded_until bigint generated always as (
        case
            when rate = 0 then null
            when dry then settled_at
            else least(settled_at + div(free, rate), 1099511627775)::bigint
        end
    ) stored
);
create index account_by_owner on account (owner, id);
create index account_by_funded_until on account (funded_until, id) where funded_until is not null;

create table approval (
    account hash not null,
    operator address not null,
    rate_limit uint128 not null,
    rate_used uint128 not null,
    pay_limit uint128 not null,
    max_lock bigint not null,
    expiry seconds not null,
    primary key (account, operator)
);

create table stream (
    id hash primary key,
    account hash not null,
    operator address not null,
    payee address not null,
    rate uint128 not null,
    lock bigint not null,
    state text not null check (state in ('reserved', 'running', 'closed')),
    clock_at seconds not null,
    owed uint128 not null,
    -- Token base units that went to the payee so far.
    collected uint128 not null,
    opened_at seconds not null
);
create index stream_by_account on stream (account, id);
create index stream_by_payee on stream (payee, id);

-- Leases from their opening to their end, with the terms that hold now.

create table lease (
    id bigint primary key,
    provider address not null,
    account hash not null,
    slot bigint not null,
    state text not null check (state in ('pending', 'active', 'closed')),
    opener address not null,
    pod hash not null,
    -- What was agreed; the stream's rate is zero once it is closed.
    rate uint128 not null,
    lock bigint not null,
    coverage uint128 not null,
    grace integer not null,
    "full" integer not null,
    response integer not null,
    notice integer not null,
    start_by seconds not null,
    version bigint not null,
    opened_at seconds not null,
    opened_block bigint not null,
    amended_at seconds,
    activated_at seconds,
    -- Why and for when the provider gave notice.
    notice_reason text,
    ends_at seconds,
    closed_at seconds,
    close_reason text,
    closer address,
    -- What of the coverage was taken for leaving at once.
    penalty uint128 not null,
    check ((state = 'closed') = (closed_at is not null)),
    check ((state = 'closed') = (close_reason is not null)),
    check (state <> 'active' or activated_at is not null)
);
create index lease_by_provider on lease (provider, id);
create index lease_by_account on lease (account, id);
create index lease_by_state on lease (state, id);
create index lease_by_pod on lease (pod, id);
-- A slot holds at most one open lease.
create unique index lease_in_slot on lease (account, slot) where state <> 'closed';

create table agent (
    account hash not null,
    agent address not null,
    allowed boolean not null,
    primary key (account, agent)
);

-- Quotes that were used or cancelled: bit i of `bits` stands for nonce `word` × 256 + i.
create table nonce (
    provider address not null,
    word hash not null,
    bits hash not null,
    primary key (provider, word)
);

-- Who may open leases in a provider's name without its signature.
create table issuer (
    provider address not null,
    issuer address not null,
    allowed boolean not null,
    primary key (provider, issuer)
);

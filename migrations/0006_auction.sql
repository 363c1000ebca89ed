-- Orders on the reverse market, and who bid how much for them.

create table auction (
    id bigint primary key,
    account hash not null,
    payer address not null,
    slot bigint not null,
    pod hash not null,
    cpu bigint not null,
    -- What a publisher may write here is a uint64.
    memory_mib numeric(20, 0) not null,
    storage_mib numeric(20, 0) not null,
    max_rate uint128 not null,
    coverage uint128 not null,
    lock bigint not null,
    grace integer not null,
    "full" integer not null,
    response integer not null,
    notice integer not null,
    start_within integer not null,
    duration bigint not null,
    self_award boolean not null,
    -- [{auditor, attribute}]: what a bidder has to have.
    requirements jsonb not null,
    uri text not null,
    state text not null check (state in ('open', 'awarded', 'over')),
    placed_at seconds not null,
    deadline seconds not null,
    -- Who leads or was awarded, at which rate; while nobody leads, the most that is paid.
    leader address,
    rate uint128 not null,
    bids bigint not null,
    reopened integer not null,
    lease bigint,
    outcome text,
    over_at seconds,
    -- What winners lost that did not start.
    penalty uint128 not null,
    check ((state = 'over') = (outcome is not null)),
    check (state <> 'awarded' or lease is not null)
);
create index auction_by_state on auction (state, id);
create index auction_by_account on auction (account, id);
create index auction_by_leader on auction (leader, id) where leader is not null;
create index auction_by_deadline on auction (deadline, id) where state = 'open';

create table bid (
    auction bigint not null,
    -- The how-manieth it is.
    number bigint not null,
    bidder address not null,
    rate uint128 not null,
    time seconds not null,
    primary key (auction, number)
);
create index bid_by_bidder on bid (bidder, auction, number);

-- What the market reads by: open leases alone, which stay few while history grows, and what became of each provider's.

create index lease_open_by_provider on lease (provider, id) where state <> 'closed';
create index lease_open_by_account on lease (account, id) where state <> 'closed';
create index auction_open_by_account on auction (account, id) where state <> 'over';
create index app_kept on app (id) where retired_at is null;

-- How a provider's leases went. The fold counts, since counting rows would cost more with each lease that ever was.
create table tally (
    provider address primary key,
    opened bigint not null,
    -- Of those, the ones that are open now.
    open bigint not null check (open >= 0),
    -- How many were closed for each reason, by the reason's name.
    closed jsonb not null,
    -- When it last closed one because it had no room; zero if it never did.
    full_at seconds not null
);

-- What is here already was not counted, and taking a block back would not undo a count that was made afterwards: it is
-- mirrored anew.
truncate cursor, block, event, change, account, approval, stream, bond, locker, bond_lock, claim, provider,
    price, vouch, lease, agent, nonce, issuer, auction, bid, challenge, outage, watcher, epoch, app, replica;

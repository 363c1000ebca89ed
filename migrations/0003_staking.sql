-- Bonds and what they back. All amounts are token base units.

create table bond (
    bonder address primary key,
    bonded uint128 not null,
    locked uint128 not null,
    unbonding uint128 not null,
    withdrawable_at seconds not null,
    -- What was ever taken out of it.
    slashed uint128 not null,
    check (locked <= bonded)
);

create table locker (
    bonder address not null,
    locker address not null,
    allowed boolean not null,
    primary key (bonder, locker)
);

create table bond_lock (
    bonder address not null,
    locker address not null,
    -- The locker's own number: of Leases, the lease.
    ref numeric(29, 0) not null,
    amount uint128 not null,
    -- Until when it backs something; null while that is not known.
    release_at seconds,
    primary key (bonder, locker, ref)
);

-- What slashes brought somebody, and what of it waits to be claimed.
create table claim (
    beneficiary address primary key,
    amount uint128 not null,
    claimed uint128 not null
);

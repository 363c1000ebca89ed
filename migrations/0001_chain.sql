-- The chain as far as it was followed, the events that were found, and what is needed to take them back.

create domain address as bytea check (octet_length(value) = 20);
create domain hash as bytea check (octet_length(value) = 32);
-- A uint128 of Solidity: amounts in token base units, units, rates in units per second.
create domain uint128 as numeric(39, 0) check (value >= 0 and value < 340282366920938463463374607431768211456);
-- Unix seconds, as the contracts keep them: a uint40.
create domain seconds as bigint check (value >= 0 and value < 1099511627776);

-- What this database mirrors, and how far. One row: it moves in the same transaction as all that it speaks of.
create table cursor (
    one boolean primary key default true check (one),
    chain_id bigint not null,
    -- The deployment that is mirrored: another one needs a database of its own.
    payments address not null,
    number bigint not null,
    hash hash not null,
    -- Blocks up to here do not go away any more, so nothing is kept that would take them back.
    finalized bigint not null check (finalized <= number),
    -- The chain's time at `number`.
    time seconds not null,
    -- How often blocks were taken back, and how many at most.
    reorgs bigint not null default 0,
    deepest_reorg bigint not null default 0
);

-- Blocks that hold events, and all of those that may yet go away.
create table block (
    number bigint primary key,
    hash hash not null unique,
    parent hash not null,
    time seconds not null
);

-- An event leaves with its block, so a reorg is one delete. What a foreign key checks row by row, at the price of the copy
-- itself, the triggers below check for all rows of a statement at once.
create table event (
    block_number bigint not null,
    log_index integer not null,
    tx_hash hash not null,
    contract text not null,
    name text not null,
    args jsonb not null,
    -- Whom it is about, for their histories.
    account hash,
    provider address,
    lease bigint,
    primary key (block_number, log_index)
);
create index event_by_account on event (account, block_number, log_index) where account is not null;
create index event_by_provider on event (provider, block_number, log_index) where provider is not null;
create index event_by_lease on event (lease, block_number, log_index) where lease is not null;

create function event_has_block() returns trigger language plpgsql as $$
begin
    if exists (
        select from (select distinct block_number from added) event
        where not exists (select from block where number = event.block_number)
    ) then
        raise foreign_key_violation using message = 'an event is of a block that is not there';
    end if;
    return null;
end $$;
create trigger event_has_block after insert on event
    referencing new table as added for each statement execute function event_has_block();

create function event_leaves() returns trigger language plpgsql as $$
begin
    delete from event using gone where block_number = gone.number;
    return null;
end $$;
create trigger event_leaves after delete on block
    referencing old table as gone for each statement execute function event_leaves();

-- Neither is ever renamed to another block.
create function is_final() returns trigger language plpgsql as $$
begin
    raise exception '% is only inserted and deleted', tg_table_name;
end $$;
create trigger block_is_final before update on block for each statement execute function is_final();
create trigger event_is_final before update on event for each statement execute function is_final();

-- What a row was before a block that may yet go away changed it; null if it was not there. Taking a block back puts the
-- oldest of these back that are newer than the block that stays.
create table change (
    block_number bigint not null references block on delete cascade,
    relation text not null,
    key jsonb not null,
    before jsonb,
    primary key (block_number, relation, key)
);

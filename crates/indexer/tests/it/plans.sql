-- A market of 100,000 providers and 1,000,000 leases that is some years old: one lease in fifty is open.
-- It goes with the test, and what is put in is whole.
alter table lease set unlogged;
alter table event set unlogged;
alter table event disable trigger event_has_block;

create function addr(n bigint) returns bytea language sql immutable as $$ select substr(sha256(int8send(n)), 1, 20) $$;
create function id(n bigint) returns bytea language sql immutable as $$ select sha256(int8send(n)) $$;

insert into provider select addr(n), 1, n % 10 <> 0, 1700000000 + n, 1700000000, 'https://p.example', 'eu-' || n % 50,
    1000 + n, 200, 3, id(n), id(n), id(0) from generate_series(1, 100000) n;
insert into bond select addr(n), 1000000, 0, 0, 0, 0 from generate_series(1, 100000) n;
insert into locker select addr(n), addr(0), true from generate_series(1, 100000) n;
insert into tally select addr(n), 10, 0, '{}', 0 from generate_series(1, 100000) n;
insert into vouch select addr(n % 50000), addr(n % 7), id(n % 3), 1800000000 from generate_series(1, 100000) n
    on conflict do nothing;
insert into price select addr(n % 50000), n / 50000, 1700000000, 1000, 200, 3 from generate_series(1, 250000) n;

insert into lease select n, addr(1 + n % 100000), id(n % 200000), n % 16777216,
    case when n % 50 = 0 then 'active' else 'closed' end, addr(n), id(n % 5000), 1000, 60, 0, 60, 3600, 300, 0,
    1700000000, 1, 1700000000 + n, n, null, 1700000000 + n, null, null,
    case when n % 50 = 0 then null else 1700000000 + n end, case when n % 50 = 0 then null else 'payer-done' end,
    null, 0 from generate_series(1, 1000000) n;
insert into challenge select n * 10, addr(n), 1, 2, 0, 'answered', 0, 1, 1 from generate_series(1, 100000) n;
insert into outage select n * 10, 1, 2, 0, 0, 1 from generate_series(1, 100000) n;

insert into account select id(n), addr(n % 50000), id(0), 1000, 0, 1, 0, 1700000000, false, 0
    from generate_series(1, 200000) n;
insert into stream select id(1000000 + n), id(n % 200000), addr(1), addr(2), 0, 60, 'closed', 0, 0, 0, 1700000000
    from generate_series(1, 400000) n;

insert into auction select n, id(n % 50000), addr(n), 0, id(n % 5000), 500, 512, 0, 1000, 0, 60, 60, 3600, 300, 0, 60,
    600, true, '[]', '', case when n % 100 = 0 then 'open' else 'over' end, 1700000000, 1700000600, addr(n % 100000),
    900, 3, 0, null, case when n % 100 = 0 then null else 'started' end,
    case when n % 100 = 0 then null else 1700000600 end, 0 from generate_series(1, 200000) n;
insert into bid select n / 3, n % 3, addr(n % 100000), 900, 1700000000 from generate_series(1, 600000) n;

insert into app select n, addr(n % 20000), addr(n % 50), id(n % 50000), 0, 'app-' || n, true, id(n), '', 1, 3, 60, 1000,
    id(0), 1700000000, case when n % 5 = 0 then null else 1700000600 end from generate_series(1, 100000) n;
insert into replica select n / 3, n % 3, n, addr(n % 50), 1700000000 from generate_series(1, 300000) n;

insert into block select n, id(n), id(n - 1), 1700000000 + n from generate_series(1, 100000) n;
insert into event select 1 + n % 100000, n / 100000, id(n), 'Leases', 'Opened', '{}', id(n % 200000),
    addr(1 + n % 100000), n from generate_series(1, 1000000) n;

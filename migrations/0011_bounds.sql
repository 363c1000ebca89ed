-- What holds, out of what ever was: an account's open streams, and a provider's vouches by how long they hold. Both are read a
-- few at a time, and neither costs more with those that are over.

create index stream_open_by_account on stream (account, id) where state <> 'closed';
create index vouch_by_expiry on vouch (provider, expiry desc, auditor, attribute);

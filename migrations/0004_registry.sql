-- Providers by what they say of themselves, and what they asked for before.

create table provider (
    address address primary key,
    version bigint not null,
    listed boolean not null,
    seen_at seconds not null,
    listed_at seconds not null,
    endpoint text not null,
    region text not null,
    -- Prices in units per second: of a thousandth of a core, a MiB of memory, a MiB of volume.
    cpu uint128 not null,
    memory_mib uint128 not null,
    storage_mib uint128 not null,
    tls_key hash not null,
    seal_key hash not null,
    -- What it claims to be able to attest; zero for nothing.
    measurement hash not null
);
create index provider_by_seen_at on provider (seen_at, address) where listed;
create index provider_by_region on provider (region, address) where listed;

create table price (
    provider address not null,
    version bigint not null,
    time seconds not null,
    cpu uint128 not null,
    memory_mib uint128 not null,
    storage_mib uint128 not null,
    primary key (provider, version)
);

-- Who vouches that a provider has what; zero seconds once that was taken back.
create table vouch (
    provider address not null,
    auditor address not null,
    attribute hash not null,
    expiry seconds not null,
    primary key (provider, auditor, attribute)
);
create index vouch_by_attribute on vouch (attribute, auditor, provider);

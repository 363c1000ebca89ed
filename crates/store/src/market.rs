//! What the market reads: pages by key, each of a bounded number of rows that an index leads to, so that no question costs
//! more as history grows.

use alloy_primitives::{Address, B256};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction, postgres::PgListener, types::Json};

use crate::{
    account::Account, app::App, auction::Auction, bid::Bid, bond::Bond, challenge::Challenge,
    event::Place, lease::Lease, outage::Outage, price::Price, provider::Provider, replica::Replica,
    stream::Stream, tally::Tally, vouch::Vouch,
};

/// A provider with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standing {
    /// Its listing.
    pub provider: Provider,
    /// Its bond.
    pub bond: Option<Bond>,
    /// Whether the contract that was asked about may lock parts of the bond.
    pub lockable: bool,
    /// How its leases went.
    pub tally: Option<Tally>,
    /// Who vouches for what it has, and until when: as many as were asked for, those that hold longest first.
    pub vouches: Vec<Vouch>,
}

/// What is asked of providers, beside their listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aspects {
    /// The contract that may lock parts of their bonds or not.
    pub locker: Address,
    /// The time, in Unix seconds: a vouch that ended before it is left out.
    pub now: u64,
    /// How many vouches of each there are at most, as anybody may vouch for anybody.
    pub vouches: u32,
}

/// A lease with what was found about it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LeaseFile {
    /// The lease.
    pub lease: Lease,
    /// Its last challenge.
    pub challenge: Option<Challenge>,
    /// Its last outage.
    pub outage: Option<Outage>,
}

/// A transaction in which everything is read as it was at one instant.
pub type Snapshot = Transaction<'static, Postgres>;

/// Begins one.
///
/// # Errors
/// When the database does not answer.
pub async fn snapshot(pool: &PgPool) -> Result<Snapshot, sqlx::Error> {
    pool.begin_with("begin isolation level repeatable read, read only").await
}

/// A connection that is told when the cursor moves.
///
/// # Errors
/// When the database does not answer.
pub async fn heads(pool: &PgPool) -> Result<Heads, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("head").await?;
    Ok(Heads(listener))
}

/// Tells when the cursor moves.
#[derive(Debug)]
pub struct Heads(PgListener);

impl Heads {
    /// Waits for the next move, or until the connection was lost and made anew, so that moves may have been missed.
    ///
    /// # Errors
    /// When the database does not answer any more.
    pub async fn next(&mut self) -> Result<(), sqlx::Error> {
        self.0.try_recv().await.map(drop)
    }
}

/// What a query says of a provider `p`: `$1`, `$3` and `$4` are the [`Aspects`], `$2` is how many providers there are.
macro_rules! standings {
    ($conn:expr, $aspects:expr, $limit:expr, $where:literal $order:literal, $($arg:expr),*) => {{
        let Aspects { locker, now, vouches } = $aspects;
        let rows = sqlx::query_scalar!(
            "select jsonb_build_object(
                 'provider', to_jsonb(p),
                 'bond', (select to_jsonb(b) from bond b where b.bonder = p.address),
                 'lockable', coalesce((
                     select l.allowed from locker l where l.bonder = p.address and l.locker = $1::bytea
                 ), false),
                 'tally', (select to_jsonb(t) from tally t where t.provider = p.address),
                 'vouches', coalesce((
                     select jsonb_agg(to_jsonb(v)) from (
                         select * from vouch where vouch.provider = p.address and vouch.expiry >= $3::bigint
                         order by vouch.expiry desc, vouch.auditor, vouch.attribute limit $4
                     ) v
                 ), '[]')
             ) as \"row!: Json<Standing>\" from provider p where "
                + $where
                + " order by "
                + $order
                + " limit $2",
            locker.as_slice(),
            i64::from($limit),
            i64::try_from(now).unwrap_or(i64::MAX),
            i64::from(vouches),
            $($arg),*
        );
        Ok(rows.fetch_all($conn).await?.into_iter().map(|row| row.0).collect())
    }};
}

/// Up to `limit` providers after an address, in the order of their addresses, whether they are listed or not.
///
/// # Errors
/// When the database fails.
pub async fn standings_after(
    conn: &mut PgConnection,
    aspects: Aspects,
    after: Option<Address>,
    limit: u32,
) -> Result<Vec<Standing>, sqlx::Error> {
    let after = after.map(|after| after.to_vec()).unwrap_or_default();
    standings!(conn, aspects, limit, "p.address > $5::bytea" "p.address", after)
}

/// Up to `limit` listed providers, the one that was heard of last first; `before` is the last one of the page before.
///
/// # Errors
/// When the database fails.
pub async fn standings_seen(
    conn: &mut PgConnection,
    aspects: Aspects,
    before: Option<(u64, Address)>,
    limit: u32,
) -> Result<Vec<Standing>, sqlx::Error> {
    let (seen_at, address) = before.map_or((i64::MAX, Vec::new()), |(seen_at, address)| {
        (i64::try_from(seen_at).unwrap_or(i64::MAX), address.to_vec())
    });
    standings!(
        conn,
        aspects,
        limit,
        "p.listed and (p.seen_at, p.address) < ($5::bigint, $6::bytea)"
        "p.seen_at desc, p.address desc",
        seen_at,
        address
    )
}

/// Up to `limit` listed providers after an address, in the order of their addresses.
///
/// # Errors
/// When the database fails.
pub async fn listed_standings_after(
    conn: &mut PgConnection,
    aspects: Aspects,
    after: Option<Address>,
    limit: u32,
) -> Result<Vec<Standing>, sqlx::Error> {
    let after = after.map(|after| after.to_vec()).unwrap_or_default();
    standings!(conn, aspects, limit, "p.listed and p.address > $5::bytea" "p.address", after)
}

/// Up to `limit` listed providers of a region after an address, in the order of their addresses.
///
/// # Errors
/// When the database fails.
pub async fn listed_standings_in(
    conn: &mut PgConnection,
    aspects: Aspects,
    region: &str,
    after: Option<Address>,
    limit: u32,
) -> Result<Vec<Standing>, sqlx::Error> {
    let after = after.map(|after| after.to_vec()).unwrap_or_default();
    standings!(
        conn,
        aspects,
        limit,
        "p.listed and p.region = $5 and p.address > $6::bytea" "p.address",
        region,
        after
    )
}

/// Providers by their addresses, as far as they are there.
///
/// # Errors
/// When the database fails.
pub async fn standings_of(
    conn: &mut PgConnection,
    aspects: Aspects,
    providers: &[Address],
) -> Result<Vec<Standing>, sqlx::Error> {
    let addresses: Vec<Vec<u8>> = providers.iter().map(|address| address.to_vec()).collect();
    let limit = u32::try_from(providers.len()).unwrap_or(u32::MAX);
    standings!(conn, aspects, limit, "p.address = any($5::bytea[])" "p.address", &addresses as &[Vec<u8>])
}

/// Rows of one table, a page at a time: `$1` is where the page begins, `$2` how many there are.
macro_rules! pages {
    ($(
        $(#[$doc:meta])*
        $name:ident($($arg:ident: $kind:ty => $bind:expr),*; $from:ident: $key:ty => $start:expr) -> $row:ty
        { $select:literal $where:literal $order:literal }
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the database fails.
        pub async fn $name(
            conn: &mut PgConnection,
            $($arg: $kind,)*
            $from: Option<$key>,
            limit: u32,
        ) -> Result<Vec<$row>, sqlx::Error> {
            let rows = sqlx::query_scalar!(
                "select to_jsonb(t) as " + $select + " t where " + $where + " order by " + $order + " limit $2",
                $start,
                i64::from(limit),
                $($bind),*
            );
            Ok(rows.fetch_all(conn).await?.into_iter().map(|row| row.0).collect())
        }
    )*};
}

/// Where a page begins that goes down from the newest.
fn below(before: Option<u64>) -> i64 {
    before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX)
}

/// Where a page begins that goes up by hashes.
fn above(after: Option<B256>) -> Vec<u8> {
    after.map(|after| after.to_vec()).unwrap_or_default()
}

pages! {
    /// Leases, the newest first.
    leases(; before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.id < $1"
        "t.id desc"
    }

    /// Leases in a state, the newest first.
    leases_in_state(state: &str => state; before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.state = $3 and t.id < $1"
        "t.id desc"
    }

    /// A provider's leases, the newest first.
    leases_of_provider(provider: Address => provider.as_slice(); before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.provider = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// A provider's leases that are not closed, the newest first.
    open_leases_of_provider(provider: Address => provider.as_slice(); before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.provider = $3::bytea and t.state <> 'closed' and t.id < $1"
        "t.id desc"
    }

    /// An account's leases, the newest first.
    leases_of_account(account: B256 => account.as_slice(); before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.account = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// An account's leases that are not closed, the newest first.
    open_leases_of_account(account: B256 => account.as_slice(); before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.account = $3::bytea and t.state <> 'closed' and t.id < $1"
        "t.id desc"
    }

    /// Leases of a pod, the newest first.
    leases_of_pod(pod: B256 => pod.as_slice(); before: u64 => below(before)) -> Lease {
        "\"row!: Json<Lease>\" from lease"
        "t.pod = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// Orders, the newest first.
    orders(; before: u64 => below(before)) -> Auction {
        "\"row!: Json<Auction>\" from auction"
        "t.id < $1"
        "t.id desc"
    }

    /// Orders in a state, the newest first.
    orders_in_state(state: &str => state; before: u64 => below(before)) -> Auction {
        "\"row!: Json<Auction>\" from auction"
        "t.state = $3 and t.id < $1"
        "t.id desc"
    }

    /// An account's orders, the newest first.
    orders_of_account(account: B256 => account.as_slice(); before: u64 => below(before)) -> Auction {
        "\"row!: Json<Auction>\" from auction"
        "t.account = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// An account's orders that are not over, the newest first.
    open_orders_of_account(account: B256 => account.as_slice(); before: u64 => below(before)) -> Auction {
        "\"row!: Json<Auction>\" from auction"
        "t.account = $3::bytea and t.state <> 'over' and t.id < $1"
        "t.id desc"
    }

    /// Orders that a provider leads or was awarded, the newest first.
    orders_led_by(provider: Address => provider.as_slice(); before: u64 => below(before)) -> Auction {
        "\"row!: Json<Auction>\" from auction"
        "t.leader = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// Apps, the newest first.
    apps(; before: u64 => below(before)) -> App {
        "\"row!: Json<App>\" from app"
        "t.id < $1"
        "t.id desc"
    }

    /// Apps that were not given up, the newest first.
    kept_apps(; before: u64 => below(before)) -> App {
        "\"row!: Json<App>\" from app"
        "t.retired_at is null and t.id < $1"
        "t.id desc"
    }

    /// An owner's apps, the newest first.
    apps_of_owner(owner: Address => owner.as_slice(); before: u64 => below(before)) -> App {
        "\"row!: Json<App>\" from app"
        "t.owner = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// A keeper's apps, the newest first.
    apps_of_keeper(keeper: Address => keeper.as_slice(); before: u64 => below(before)) -> App {
        "\"row!: Json<App>\" from app"
        "t.keeper = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// Apps that an account pays for, the newest first.
    apps_of_account(account: B256 => account.as_slice(); before: u64 => below(before)) -> App {
        "\"row!: Json<App>\" from app"
        "t.account = $3::bytea and t.id < $1"
        "t.id desc"
    }

    /// Bids for an order, the last first.
    bids(order: u64 => order.cast_signed(); before: u64 => below(before)) -> Bid {
        "\"row!: Json<Bid>\" from bid"
        "t.auction = $3 and t.number < $1"
        "t.number desc"
    }

    /// What a provider asked for, the latest first.
    prices(provider: Address => provider.as_slice(); before: u64 => below(before)) -> Price {
        "\"row!: Json<Price>\" from price"
        "t.provider = $3::bytea and t.version < $1"
        "t.version desc"
    }

    /// The replicas of an app, in their order.
    replicas(app: u64 => app.cast_signed(); after: u32 => after.map_or(-1, |after| i32::try_from(after).unwrap_or(i32::MAX))) -> Replica {
        "\"row!: Json<Replica>\" from replica"
        "t.app = $3 and t.replica > $1"
        "t.replica"
    }

    /// Accounts, in the order of their ids.
    accounts(; after: B256 => above(after)) -> Account {
        "\"row!: Json<Account>\" from account"
        "t.id > $1::bytea"
        "t.id"
    }

    /// An owner's accounts, in the order of their ids.
    accounts_of(owner: Address => owner.as_slice(); after: B256 => above(after)) -> Account {
        "\"row!: Json<Account>\" from account"
        "t.owner = $3::bytea and t.id > $1::bytea"
        "t.id"
    }

    /// An account's streams that are not closed, in the order of their ids.
    open_streams(account: B256 => account.as_slice(); after: B256 => above(after)) -> Stream {
        "\"row!: Json<Stream>\" from stream"
        "t.account = $3::bytea and t.state <> 'closed' and t.id > $1::bytea"
        "t.id"
    }

    /// An account's streams, in the order of their ids.
    streams(account: B256 => account.as_slice(); after: B256 => above(after)) -> Stream {
        "\"row!: Json<Stream>\" from stream"
        "t.account = $3::bytea and t.id > $1::bytea"
        "t.id"
    }
}

/// One row by its key.
macro_rules! ones {
    ($($(#[$doc:meta])* $name:ident($arg:ident: $kind:ty => $bind:expr) -> $row:ty { $query:literal })*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the database fails.
        pub async fn $name(
            conn: &mut PgConnection,
            $arg: $kind,
        ) -> Result<Option<$row>, sqlx::Error> {
            let row = sqlx::query_scalar!($query, $bind).fetch_optional(conn).await?;
            Ok(row.map(|row| row.0))
        }
    )*};
}

ones! {
    /// A lease, with what was found about it.
    lease(id: u64 => id.cast_signed()) -> LeaseFile {
        "select jsonb_build_object(
             'lease', to_jsonb(t),
             'challenge', (select to_jsonb(c) from challenge c where c.lease = t.id),
             'outage', (select to_jsonb(o) from outage o where o.lease = t.id)
         ) as \"row!: Json<LeaseFile>\" from lease t where t.id = $1"
    }

    /// An order.
    order(id: u64 => id.cast_signed()) -> Auction {
        "select to_jsonb(t) as \"row!: Json<Auction>\" from auction t where t.id = $1"
    }

    /// An app.
    app(id: u64 => id.cast_signed()) -> App {
        "select to_jsonb(t) as \"row!: Json<App>\" from app t where t.id = $1"
    }

    /// The app that has a name.
    app_named(name: &str => name) -> App {
        "select to_jsonb(t) as \"row!: Json<App>\" from app t where t.name = $1 and t.named"
    }

    /// An account.
    account(id: B256 => id.as_slice()) -> Account {
        "select to_jsonb(t) as \"row!: Json<Account>\" from account t where t.id = $1::bytea"
    }
}

/// How much there is of what goes on, each counted up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Providers that are listed.
    pub listed: u64,
    /// Of those, the ones that were heard of lately.
    pub heard: u64,
    /// Leases that run.
    pub active: u64,
    /// Leases that wait for their start.
    pub pending: u64,
    /// Orders that take bids, or wait to be awarded.
    pub open_orders: u64,
    /// Apps that were not given up.
    pub apps: u64,
}

/// Counts what goes on, each up to `limit`, so that it costs the same however much there is; a provider was heard of
/// lately if that was at `since` or later.
///
/// # Errors
/// When the database fails.
pub async fn counts(
    conn: &mut PgConnection,
    since: u64,
    limit: u32,
) -> Result<Counts, sqlx::Error> {
    // In the order of an index, so that none is left for the table itself.
    let row = sqlx::query!(
        "select
             (select count(*) from (select from provider where listed order by seen_at desc limit $1) t) as \"listed!\",
             (select count(*) from (select from provider where listed and seen_at >= $2::bigint order by seen_at desc
                 limit $1) t) as \"heard!\",
             (select count(*) from (select from lease where state = 'active' order by id desc limit $1) t) as \"active!\",
             (select count(*) from (select from lease where state = 'pending' order by id desc limit $1) t) as \"pending!\",
             (select count(*) from (select from auction where state = 'open' order by id desc limit $1) t) as \"open_orders!\",
             (select count(*) from (select from app where retired_at is null order by id desc limit $1) t) as \"apps!\"",
        i64::from(limit),
        i64::try_from(since).unwrap_or(i64::MAX)
    );
    let row = row.fetch_one(conn).await?;
    Ok(Counts {
        listed: row.listed.cast_unsigned(),
        heard: row.heard.cast_unsigned(),
        active: row.active.cast_unsigned(),
        pending: row.pending.cast_unsigned(),
        open_orders: row.open_orders.cast_unsigned(),
        apps: row.apps.cast_unsigned(),
    })
}

/// Up to `limit` of the events after `place`, in their order: where each is, and which provider it is about, if any.
///
/// # Errors
/// When the database fails.
pub async fn touched_after(
    conn: &mut PgConnection,
    place: Place,
    limit: u32,
) -> Result<Vec<Touched>, sqlx::Error> {
    let rows = sqlx::query!(
        "select block_number, log_index, provider as \"provider: Vec<u8>\" from event
         where (block_number, log_index) > ($1, $2) order by block_number, log_index limit $3",
        place.block.cast_signed(),
        place.log_index.cast_signed(),
        i64::from(limit)
    );
    let rows = rows.fetch_all(conn).await?.into_iter().map(|row| {
        let provider = row.provider.map(|bytes| Address::try_from(bytes.as_slice())).transpose();
        Ok(Touched {
            place: Place {
                block: row.block_number.cast_unsigned(),
                log_index: row.log_index.cast_unsigned(),
            },
            provider: provider.map_err(|err| sqlx::Error::Decode(err.into()))?,
        })
    });
    rows.collect()
}

/// An event, by what it touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// Where it is.
    pub place: Place,
    /// The provider that it is about.
    pub provider: Option<Address>,
}

/// How many of an app's first `replicas` have a lease that is not closed. An app has 65,535 at most, and each lease was paid
/// for.
///
/// # Errors
/// When the database fails.
pub async fn deployed(
    conn: &mut PgConnection,
    app: u64,
    replicas: u32,
) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from replica t where t.app = $1 and t.replica < $2
         and exists (select from lease where lease.id = t.lease and lease.state <> 'closed')",
        app.cast_signed(),
        i32::try_from(replicas).unwrap_or(i32::MAX)
    );
    Ok(count.fetch_one(conn).await?.cast_unsigned())
}

/// How often blocks were taken back, and how many at most.
///
/// # Errors
/// When the database fails.
pub async fn reorgs(conn: &mut PgConnection) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query!("select reorgs, deepest_reorg from cursor").fetch_optional(conn).await?;
    Ok(row.map_or((0, 0), |row| (row.reorgs.cast_unsigned(), row.deepest_reorg.cast_unsigned())))
}
